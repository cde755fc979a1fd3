//! Apache Kafka's jars, fetched once by Maven and kept in cargo's target folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

const VERSION: &str = "4.3.1";

const POM: &str = r#"<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>waybill</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>KAFKA</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>KAFKA</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
"#;

/// The folder of the jars, filled on first use. One process fetches, the others wait for it.
pub(crate) fn kafka_jars() -> anyhow::Result<PathBuf> {
    let home = target().join(format!("kafka-{VERSION}"));
    let lib = home.join("lib");
    if lib.exists() {
        return Ok(lib);
    }
    fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
    let lock = File::create(home.join("lock")).context("cannot make the lock file")?;
    lock.lock().context("cannot lock the jars' folder")?;
    if !lib.exists() {
        fetch(&home, &lib)?;
    }
    Ok(lib)
}

/// `lib` appears by a rename, so it is whole or not there, even when we are killed half-way.
fn fetch(home: &Path, lib: &Path) -> anyhow::Result<()> {
    let part = home.join("part");
    // What a killed run left; most often there is nothing.
    let _ = fs::remove_dir_all(&part);
    fs::write(home.join("pom.xml"), POM.replace("KAFKA", VERSION)).context("cannot write a pom")?;
    let run = Command::new("mvn")
        .args(["-q", "-B", "-f"])
        .arg(home.join("pom.xml"))
        .arg("dependency:copy-dependencies")
        .arg("-DincludeScope=runtime")
        .arg(format!("-DoutputDirectory={}", part.display()))
        .stdin(Stdio::null())
        .output()
        .context("mvn (Maven) cannot be run")?;
    ensure!(
        run.status.success(),
        "mvn could not fetch Kafka: {}{}",
        String::from_utf8_lossy(&run.stdout),
        String::from_utf8_lossy(&run.stderr)
    );
    fs::rename(&part, lib).context("cannot move the jars into place")
}

/// Cargo's target folder, as cargo finds it: a relative one counts from the workspace.
fn target() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    workspace.join(target)
}
