# shellcheck shell=bash
# Installing: apt for PostgreSQL, Maven for Kafka's jars, Go for versitygw. Sourced by compose/native.
# Everything that is not a Debian package lies under $tools with its version in the path, so that a second
# call finds it and does nothing.

tools=${SLUICE_TOOLS_DIR:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/sluice}
kafka_home="$tools/kafka-$KAFKA_VERSION"
versitygw="$tools/versitygw-$VERSITYGW_VERSION/versitygw"
monitoring="$tools/monitoring"
reader="$tools/duckdb-$DUCKDB_VERSION"
rivals_list="$repository/loadtest/benches/staging/requirements.txt"

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

apt_install() {
  say "installing $* (apt)"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1 && return
  as_root apt-get update -qq >/dev/null
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

postgres_bin() {
  local found
  # shellcheck disable=SC2012  # names of Debian's own making
  found=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -t/ -k5 -n | tail -n 1)
  [ -n "$found" ] && [ -x "$found/initdb" ] && echo "$found" && return
  found=$(command -v initdb) && dirname "$found"
}

install_postgres() {
  [ -n "$(postgres_bin)" ] && return
  command -v apt-get >/dev/null || die "install PostgreSQL $POSTGRES_MAJOR or newer (initdb is not found)"
  # no cluster of the package's own: ours live in their state folders
  as_root mkdir -p /etc/postgresql-common
  [ -e /etc/postgresql-common/createcluster.conf ] ||
    echo 'create_main_cluster = false' | as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
  apt_install postgresql postgresql-client
}

install_kafka() {
  [ -d "$kafka_home/libs" ] && return
  command -v mvn >/dev/null || apt_install maven default-jre-headless
  say "installing Kafka $KAFKA_VERSION (Maven)"
  local work
  work=$(mktemp -d "$tools/kafka.XXXXXX")
  cat >"$work/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion><groupId>sluice</groupId><artifactId>stack</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_$KAFKA_SCALA_VERSION</artifactId><version>$KAFKA_VERSION</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$KAFKA_VERSION</version></dependency>
  </dependencies>
</project>
POM
  mvn -q -B -f "$work/pom.xml" dependency:copy-dependencies -DoutputDirectory="$work/libs" >"$work/log" 2>&1 ||
    { tail -n 20 "$work/log" >&2; die "Maven could not fetch Kafka"; }
  mv -T "$work" "$kafka_home"
}

install_versitygw() {
  [ -x "$versitygw" ] && return
  command -v go >/dev/null || apt_install golang-go
  say "installing versitygw $VERSITYGW_VERSION (Go)"
  local work
  work=$(mktemp -d "$tools/versitygw.XXXXXX")
  GOBIN="$work" GOFLAGS=-mod=mod go install "github.com/versity/versitygw/cmd/versitygw@v$VERSITYGW_VERSION" >"$work/log" 2>&1 ||
    { tail -n 20 "$work/log" >&2; die "Go could not build versitygw"; }
  mv -T "$work" "$(dirname "$versitygw")"
}

# promtool and amtool alone: unpacked, so that no service starts
install_monitoring() {
  [ -x "$monitoring/usr/bin/promtool" ] && [ -x "$monitoring/usr/bin/amtool" ] && return
  command -v apt-get >/dev/null || { say "promtool and amtool: install them by hand"; return; }
  say "unpacking promtool and amtool (apt)"
  local work
  work=$(mktemp -d "$tools/monitoring.XXXXXX")
  chmod 755 "$work"
  (cd "$work" && apt-get download prometheus prometheus-alertmanager >/dev/null 2>&1) || {
    as_root apt-get update -qq >/dev/null
    (cd "$work" && apt-get download prometheus prometheus-alertmanager >/dev/null 2>&1) ||
      die "apt could not fetch prometheus and prometheus-alertmanager"
  }
  for package in "$work"/*.deb; do dpkg -x "$package" "$work"; rm "$package"; done
  mv -T "$work" "$monitoring"
}

# another reader of the lake, for the tests: DuckDB in an environment of its own
install_reader() {
  [ -x "$reader/bin/python3" ] && "$reader/bin/python3" -c 'import duckdb' 2>/dev/null && return
  command -v python3 >/dev/null || apt_install python3 python3-venv
  say "installing DuckDB $DUCKDB_VERSION (pip)"
  rm -rf "$reader"
  python3 -m venv "$reader" || { apt_install python3-venv && python3 -m venv "$reader"; }
  "$reader/bin/pip" install -q --disable-pip-version-check "duckdb==$DUCKDB_VERSION" || die "pip could not install DuckDB"
}

# the engines of the staging benchmark, PySpark's Java among them; says on standard output which python3 has them
install_rivals() {
  local rivals
  rivals="$tools/rivals-$(sha256sum "$rivals_list" | cut -c 1-12)"
  command -v java >/dev/null || apt_install default-jre-headless
  if ! [ -e "$rivals/complete" ]; then
    command -v python3 >/dev/null || apt_install python3 python3-venv
    say "installing DuckDB, ClickHouse, Polars and PySpark (pip)"
    rm -rf "$rivals"
    python3 -m venv "$rivals" || { apt_install python3-venv && python3 -m venv "$rivals"; }
    "$rivals/bin/pip" install -q --disable-pip-version-check -r "$rivals_list" >&2 || die "pip could not install them"
    touch "$rivals/complete"
  fi
  echo "$rivals/bin/python3"
}

install_all() {
  mkdir -p "$tools"
  # two installs at once: the second waits, then finds everything
  exec 9>"$tools/lock"
  flock 9
  case ${1:-} in
    --postgres-only) install_postgres ;;
    --monitoring) install_monitoring ;;
    --reader) install_reader ;;
    --rivals) install_rivals ;;
    '') install_postgres; install_kafka; install_versitygw; command -v curl >/dev/null || apt_install curl ca-certificates ;;
    *) die "install knows --postgres-only, --monitoring, --reader and --rivals, not $1" ;;
  esac
  exec 9>&-
}
