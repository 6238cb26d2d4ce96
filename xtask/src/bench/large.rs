//! A large Go executable: the load program with 68,000 or 110,000 generated functions linked in, so that its pclntab
//! is as large as those of the largest Go programs (kubelet, cockroach, caddy with plugins: 60 to 200 MB).

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};

/// Packages, so that Go's compiler can work on several at a time: an executable of 63 MB, stripped.
pub(super) const LARGE_PACKAGES: u32 = 68;
/// Of 100 MB.
pub(super) const LARGER_PACKAGES: u32 = 110;
/// Functions in each; one takes about 1 kB of the stripped executable, a third of it in pclntab.
const FUNCTIONS: u32 = 1000;

/// Writes the sources to `folder`, beside a copy of the load program in `load`.
pub(super) fn generate(load: &Path, folder: &Path, packages: u32) -> Result<()> {
    fs::create_dir_all(folder)?;
    for file in ["go.mod", "main.go"] {
        let from = load.join(file);
        fs::copy(&from, folder.join(file)).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    let mut imports = String::new();
    let mut appends = String::new();
    for package in 0..packages {
        let path = folder.join(format!("part{package}"));
        fs::create_dir_all(&path)?;
        fs::write(path.join("part.go"), package_source(package, packages))
            .with_context(|| format!("cannot write {}", path.display()))?;
        let _ = writeln!(imports, "\t\"load/part{package}\"");
        let _ = writeln!(appends, "\tbulk = append(bulk, part{package}.Functions...)");
    }
    let bulk = format!("package main\n\nimport (\n{imports})\n\nfunc init() {{\n{appends}}}\n");
    fs::write(folder.join("bulk.go"), bulk).context("cannot write bulk.go")
}

/// One package: functions with calls, branches and constants of their own, so that no two are the same code.
fn package_source(package: u32, packages: u32) -> String {
    let mut text = format!("package part{package}\n\nimport \"fmt\"\n");
    let mut names = String::new();
    for function in 0..FUNCTIONS {
        let constant = function * packages + package;
        let _ = writeln!(
            text,
            r#"
func f{function}(n int) int {{
	names := map[string]int{{}}
	for i := 0; i < n; i++ {{
		key := fmt.Sprintf("part{package}.f{function}.%d", i)
		switch i % 7 {{
		case 0:
			names[key] += {constant}
		case 1:
			names[key+"a"] -= n
		case 2:
			delete(names, key)
		case 3:
			names[key[:1]] ^= len(key) + {function}
		default:
			if names[key] > {function} {{
				panic(key)
			}}
			names[key+fmt.Sprint(n)] = i
		}}
	}}
	return len(names)
}}"#
        );
        let _ = write!(names, "f{function}, ");
    }
    let _ = writeln!(
        text,
        "\n// Functions keeps them all in the executable.\nvar Functions = []func(int) int{{{names}}}"
    );
    text
}
