//! Apache Kafka's jars, fetched once by Maven and kept in cargo's target folder.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

use crate::fetched::fetched;

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

/// The folder of the jars, filled on first use.
pub(crate) fn kafka_jars() -> anyhow::Result<PathBuf> {
    fetched(&format!("kafka-{VERSION}"), |home, lib| {
        fs::write(home.join("pom.xml"), POM.replace("KAFKA", VERSION)).context("cannot write a pom")?;
        let run = Command::new("mvn")
            .args(["-q", "-B", "-f"])
            .arg(home.join("pom.xml"))
            .arg("dependency:copy-dependencies")
            .arg("-DincludeScope=runtime")
            .arg(format!("-DoutputDirectory={}", lib.display()))
            .stdin(Stdio::null())
            .output()
            .context("mvn (Maven) cannot be run")?;
        ensure!(
            run.status.success(),
            "mvn could not fetch Kafka: {}{}",
            String::from_utf8_lossy(&run.stdout),
            String::from_utf8_lossy(&run.stderr)
        );
        Ok(())
    })
}
