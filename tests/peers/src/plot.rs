//! Draws results as SVG. The colours are readable on a light and on a dark page.

use std::fmt::Write as _;

use crate::measure::Results;
use crate::report::time;

const STYLE: &str = "<style>\
text{font:12px sans-serif;fill:#333}.t{font-weight:bold}.e{text-anchor:end}.m{text-anchor:middle}\
.a{stroke:#999;stroke-width:1;fill:none}.g{stroke:#99999955;stroke-width:1}.l{fill:none;stroke-width:2}\
.f0{fill:#888}.f1{fill:#2f6fde}.f2{fill:#c2691c}.f3{fill:#2e8b57}.f4{fill:#8d5fc4}\
.s0{stroke:#888}.s1{stroke:#2f6fde}.s2{stroke:#c2691c}.s3{stroke:#2e8b57}.s4{stroke:#8d5fc4}\
@media (prefers-color-scheme:dark){text{fill:#ddd}.f1{fill:#6ea0ff}.f2{fill:#e8964f}.f3{fill:#5cc08a}\
.f4{fill:#b892e6}.s1{stroke:#6ea0ff}.s2{stroke:#e8964f}.s3{stroke:#5cc08a}.s4{stroke:#b892e6}}</style>";

/// Returns a bar for the median of each contender. Each contest has its own scale.
pub fn bars(results: &[Results]) -> String {
    const LABEL: f64 = 300.0;
    const WIDTH: f64 = 300.0;
    let (mut body, mut y) = (String::new(), 20.0);
    for contest in results {
        let _infallible = writeln!(body, r#"<text class="t" x="10" y="{y}">{}</text>"#, plain(&contest.title));
        y += 8.0;
        let longest = contest.lines.iter().map(|line| line.time.median).fold(0.0, f64::max);
        for (at, line) in contest.lines.iter().enumerate().filter(|(_, line)| !line.time.median.is_nan()) {
            let length = |value: f64| (WIDTH * value / longest).max(1.0);
            let class = if line.name.contains("cache-core") {
                1
            } else if at == 0 {
                0
            } else {
                2
            };
            let (bar, middle) = (length(line.time.median), y + 12.0);
            let _infallible = writeln!(
                body,
                r#"<text class="e" x="{}" y="{middle}">{}</text><rect class="f{class}" x="{LABEL}" y="{y}" width="{bar:.1}" height="15"/><text x="{:.1}" y="{middle}">{}, x{:.2}</text>"#,
                LABEL - 8.0,
                plain(&line.name),
                LABEL + bar + 6.0,
                time(line.time.median),
                line.ratio.median,
            );
            y += 19.0;
        }
        y += 26.0;
    }
    svg(760.0, y, &body)
}

/// One line of a [`Chart`].
#[derive(Debug, Clone)]
pub struct Series {
    pub name: String,
    /// Values in nanoseconds, one for each mark of the chart.
    pub values: Vec<f64>,
}

/// How times grow with something.
#[derive(Debug, Clone)]
pub struct Chart {
    pub title: String,
    /// The texts below the axis. They are at equal distances.
    pub marks: Vec<String>,
    pub series: Vec<Series>,
}

/// Returns the charts in two columns. The vertical axes are logarithmic.
pub fn lines(charts: &[Chart]) -> String {
    const WIDTH: f64 = 440.0;
    const HEIGHT: f64 = 330.0;
    let mut body = String::new();
    for (at, chart) in charts.iter().enumerate() {
        let (x, y) = ((at % 2) as f64 * WIDTH, (at / 2) as f64 * HEIGHT);
        let _infallible = writeln!(body, r#"<g transform="translate({x},{y})">{}</g>"#, chart.draw());
    }
    svg(2.0 * WIDTH, charts.len().div_ceil(2) as f64 * HEIGHT, &body)
}

impl Chart {
    fn draw(&self) -> String {
        const LEFT: f64 = 70.0;
        const TOP: f64 = 36.0;
        const WIDTH: f64 = 340.0;
        const HEIGHT: f64 = 200.0;
        let values = || self.series.iter().flat_map(|series| series.values.iter().copied());
        let lowest = values().fold(f64::INFINITY, f64::min).log10();
        let highest = values().fold(0.0, f64::max).log10();
        // At least half a decade, so that noise does not look like growth.
        let spare = ((0.5 - (highest - lowest)) / 2.0).max(0.05);
        let (lowest, highest) = (lowest - spare, highest + spare);
        let down = |value: f64| TOP + HEIGHT * (highest - value.log10()) / (highest - lowest);
        let steps = (self.marks.len().max(2) - 1) as f64;
        let right = |at: usize| LEFT + WIDTH * at as f64 / steps;
        let mut text = format!(r#"<text class="t" x="{LEFT}" y="20">{}</text>"#, plain(&self.title));
        let digits: &[f64] = if highest - lowest < 1.2 { &[1.0, 2.0, 3.0, 4.0, 6.0, 8.0] } else { &[1.0, 2.0, 5.0] };
        let powers = lowest.floor() as i32..=highest.ceil() as i32;
        let ticks = powers.flat_map(|power| digits.iter().map(move |digit| digit * 10_f64.powi(power)));
        for tick in ticks.filter(|tick| (lowest..=highest).contains(&tick.log10())) {
            let y = down(tick);
            let _infallible = write!(
                text,
                r#"<path class="g" d="M{LEFT} {y:.1}h{WIDTH}"/><text class="e" x="{}" y="{:.1}">{}</text>"#,
                LEFT - 6.0,
                y + 4.0,
                time(tick),
            );
        }
        for (at, mark) in self.marks.iter().enumerate() {
            let (x, y) = (right(at), TOP + HEIGHT + 18.0);
            let _infallible = write!(text, r#"<text class="m" x="{x:.1}" y="{y}">{}</text>"#, plain(mark));
        }
        let _infallible = write!(text, r#"<path class="a" d="M{LEFT} {TOP}v{HEIGHT}h{WIDTH}"/>"#);
        for (number, series) in self.series.iter().enumerate() {
            let points = series.values.iter().enumerate();
            let points: Vec<String> =
                points.map(|(at, value)| format!("{:.1},{:.1}", right(at), down(*value))).collect();
            let _infallible = write!(text, r#"<polyline class="l s{number}" points="{}"/>"#, points.join(" "));
            let (x, y) = (LEFT + (number % 2) as f64 * 180.0, TOP + HEIGHT + 42.0 + (number / 2) as f64 * 18.0);
            let _infallible = write!(
                text,
                r#"<rect class="f{number}" x="{x}" y="{}" width="12" height="12"/><text x="{}" y="{y}">{}</text>"#,
                y - 10.0,
                x + 18.0,
                plain(&series.name),
            );
        }
        text
    }
}

fn svg(width: f64, height: f64, body: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\">\n{STYLE}\n{body}</svg>\n"
    )
}

/// Returns a text without Markdown, for SVG.
fn plain(text: &str) -> String {
    let text = text.replace(['*', '`'], "");
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
