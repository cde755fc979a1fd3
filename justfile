# List the recipes
default:
    @just --list

# See it work, with nothing installed
demo *args:
    cargo run --release -- demo {{args}}

# Run all tests; real Kafka and Postgres are started where none are named
test *args:
    cargo test --workspace {{args}}

# Check the format, lint
lint:
    cargo fmt --check
    cargo clippy --workspace --all-targets -- -D warnings

# Check members' lints, and bans, licences and sources of dependencies; needs cargo-deny
crates:
    .ci/crates
    cargo deny --locked check -D warnings bans licenses sources

# Check the compose file; it is not run
compose-check:
    docker-compose --file docker-compose.yml config --quiet

# Check alerts, dashboards, the compose file and the image's Dockerfile; nothing is run (`just test observed` runs collector and Prometheus)
deploy-check:
    deploy/check

# Publish today's schemas and their examples as the next revision; from then on all later ones must be compatible with it
publish-schemas:
    revision=$(($(ls schemas/published | sort -n | tail -n 1) + 1)) && mkdir schemas/published/$revision \
        && cd schemas && cp --parents *.json examples/*/*.json published/$revision/

# Deploy today's version over that of an older commit, under load, and take it back half way; the old one is built first
rolling commit:
    rm -rf target/rolling/source && mkdir -p target/rolling/source
    git archive {{commit}} | tar -x -C target/rolling/source
    cargo build --manifest-path target/rolling/source/Cargo.toml --target-dir target/rolling/build -p waybill
    WAYBILL_TEST_OLD="$PWD/target/rolling/build/debug/waybill" cargo test --workspace --test integration -- rolling::a_deploy --nocapture

# What CI runs
ci:
    CI=true bash .ci/run

# Benchmarks on servers of their own: availability, chain, checkout, email, fanout, growth, recovery, replay; --help says what each measures
bench what *args:
    cargo build --release -p waybill -p waybill-benchmarks
    if [ {{what}} = chain ]; then mvn -q -B -f benchmarks/kafka-streams package; fi
    target/release/waybill-bench {{what}} {{args}}

# A seeded storm over three brokers, Postgres and nine stage processes, with the independent checker at the end; with --checkouts 5000, checkouts whose processes are killed; with --subscribers 100000 --kills 20, a crowd that is told of a restock; with --soak 30, the whole flow for so many minutes, everything restarted in turn
storm *args:
    cargo build --release -p waybill -p waybill-storm
    target/release/waybill-storm {{args}}
