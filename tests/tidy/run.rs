//! Steps of `tests/run`, on a copy of it in a folder of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use support::root;

fn program(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("#!/usr/bin/env bash\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Stands for npm: makes the programs that it would install, and says how it was called.
const NPM: &str = r#"
echo "npm $*" >>calls
package=$(printf '%s\n' "$@" | sed -n 's/@22\..*//p')
for made in "$package/bin/node" .bin/npm; do
    made=target/node/node_modules/$made
    mkdir -p "$(dirname "$made")"
    printf '#!/usr/bin/env bash\necho v22.23.5\n' >"$made"
    chmod +x "$made"
done
"#;

/// Returns what the step says with this version of Node in the system, and how it called npm.
fn brings_node(version: &str) -> (String, String) {
    let folder = tempfile::tempdir().unwrap();
    let at = |path: &str| folder.path().join(path);
    fs::create_dir(at("tests")).unwrap();
    fs::copy(root().join("tests/run"), at("tests/run")).unwrap();
    program(&at("bin/node"), &format!("echo v{version}"));
    program(&at("bin/npm"), NPM);
    let path =
        std::env::join_paths([at("bin")].into_iter().chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())));
    // Twice: what is there is not installed again.
    let steps = "source tests/run; bring_node; PATH=$PWD/bin:$PATH; bring_node; echo \"uses $(node --version)\"";
    let output =
        Command::new("bash").args(["-c", steps]).current_dir(folder.path()).env("PATH", path.unwrap()).output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    (said, fs::read_to_string(at("calls")).unwrap_or_default())
}

#[test]
fn an_outdated_node_is_replaced_by_one_from_the_registry() {
    let (said, calls) = brings_node("18.20.4");
    assert!(said.contains("uses v22.23.5") && said.contains("Node 18.20.4 is too old"), "{said}");
    assert_eq!(calls.lines().count(), 1, "{calls}");
    assert!(
        calls.starts_with("npm install --prefix") && calls.contains("@22.") && calls.contains(" npm@10."),
        "{calls}"
    );
    for version in ["20.0.0", "24.1.0"] {
        let (said, calls) = brings_node(version);
        assert!(said.contains(&format!("uses v{version}")) && calls.is_empty(), "{said}{calls}");
    }
}
