// Returns the texts of the page with too little contrast to their background, by WCAG 2.2 (AA).
(() => {
    const channels = (color) => color.match(/[\d.]+/g).map(Number);
    const luminance = (color) => {
        const [red, green, blue] = channels(color).map((value) => {
            const part = value / 255;
            return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    };
    const behind = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const color = getComputedStyle(at).backgroundColor;
            const [, , , alpha = 1] = channels(color);
            if (alpha === 1) return color;
            if (alpha !== 0) return `unknown: ${color}`;
        }
        return 'unknown: nothing';
    };
    const isSeen = (element) => {
        const { width, height } = element.getBoundingClientRect();
        return width > 1 && height > 1 && element.checkVisibility();
    };
    const hasText = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    return [...document.body.querySelectorAll('*')].filter((element) => hasText(element) && isSeen(element)).flatMap((element) => {
        const style = getComputedStyle(element);
        const [text, paper] = [style.color, behind(element)];
        if (paper.startsWith('unknown')) return [`${element.tagName} on ${paper}`];
        const [low, high] = [luminance(text), luminance(paper)].sort((a, b) => a - b);
        const ratio = (high + 0.05) / (low + 0.05);
        const size = parseFloat(style.fontSize);
        const isLarge = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
        return ratio >= (isLarge ? 3 : 4.5) ? [] : [`${element.tagName} ${ratio.toFixed(2)}: ${element.innerText}`];
    });
})()
