//! The data of a stage: a production database with every kind of object, its dump, and fingerprints to compare copies by.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::{
    Stage,
    cluster::Cluster,
    error::{Doing, Result, StageError, output_of},
};

const ROLES: &str = include_str!("roles.sql");
const PRODUCTION: &str = include_str!("production.sql");
const EVERYTHING: &str = include_str!("everything.sql");
const CATALOG: &str = include_str!("catalog.sql");
const FINGERPRINT: &str = include_str!("fingerprint.sql");

/// How many rows a production database has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scale {
    /// About 15,000 rows: restored in about a second.
    Small,
    /// About 560,000 rows.
    Full,
}

impl Scale {
    /// What `production.sql` multiplies its numbers of rows with.
    fn factor(self) -> u32 {
        match self {
            Scale::Small => 1,
            Scale::Full => 40,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Scale::Small => "small",
            Scale::Full => "full",
        }
    }
}

/// What one table, materialized view or sequence holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableFingerprint {
    /// Number of rows.
    pub rows: u64,
    /// A checksum that does not depend on the order of the rows.
    pub checksum: String,
}

/// What a database holds, by `schema.name`, with all large objects under `large objects`.
pub type Fingerprint = BTreeMap<String, TableFingerprint>;

/// Creates a database and fills it with production data, the same whenever the scale is the same.
pub fn production(cluster: &Cluster, database: &str, scale: Scale) -> Result<()> {
    cluster.psql("postgres", ROLES)?;
    create(cluster, database)?;
    cluster.psql_with(database, PRODUCTION, &["-v", &format!("scale={}", scale.factor())])?;
    Ok(())
}

/// Creates a database of every kind of object that a dump can hold, small, and the same each time.
pub fn everything(cluster: &Cluster, database: &str) -> Result<()> {
    production_roles(cluster)?;
    create(cluster, database)?;
    cluster.psql(database, EVERYTHING)?;
    let name = quoted(database);
    let of_itself = format!(
        "COMMENT ON DATABASE {name} IS 'of production'; ALTER DATABASE {name} SET statement_timeout = 1234567;
         ALTER ROLE shop_app IN DATABASE {name} SET search_path = kinds, public; GRANT TEMPORARY ON DATABASE {name} TO shop_app;
         ALTER DATABASE {name} CONNECTION LIMIT 77;"
    );
    cluster.psql(database, &of_itself).map(drop)
}

/// Creates a database and has pg_restore itself fill it from a dump, entry after entry.
pub fn restored_by_pg_restore(cluster: &Cluster, dump: &Path, database: &str) -> Result<()> {
    create(cluster, database)?;
    output_of(cluster.client("pg_restore").args(["-d", database]).arg(dump)).map(drop)
}

fn create(cluster: &Cluster, database: &str) -> Result<()> {
    let sql = format!("CREATE DATABASE {} TEMPLATE template0 OWNER shop_owner;", quoted(database));
    cluster.psql("postgres", &sql).map(drop)
}

/// Creates the roles that a production dump refers to; nothing if they exist.
pub fn production_roles(cluster: &Cluster) -> Result<()> {
    cluster.psql("postgres", ROLES).map(drop)
}

/// Dumps a database in custom format, with offsets, into that file.
pub fn dump(cluster: &Cluster, database: &str, file: &Path) -> Result<()> {
    let file = file.display().to_string();
    cluster.pg_dump(database, &["-Fc", "-f", &file]).map(drop)
}

/// What every table, materialized view and sequence of a database holds.
pub fn fingerprint(cluster: &Cluster, database: &str) -> Result<Fingerprint> {
    let answer = cluster.psql_with(database, FINGERPRINT, &["-F", "\t"])?;
    let parse = |line: &str| {
        let (rest, checksum) = line.rsplit_once('\t')?;
        let (name, rows) = rest.rsplit_once('\t')?;
        Some((name.to_owned(), TableFingerprint { rows: rows.parse().ok()?, checksum: checksum.to_owned() }))
    };
    answer
        .lines()
        .map(|line| {
            parse(line)
                .ok_or_else(|| StageError::Answer { what: "fingerprint.sql".into(), answer: line.into() })
        })
        .collect()
}

/// The schema of a database as `pg_dump -s` tells it, without comments, blank lines and its random restriction keys: equal for
/// equal schemas.
pub fn schema_fingerprint(cluster: &Cluster, database: &str) -> Result<String> {
    let dump = cluster.pg_dump(database, &["-s"])?;
    Ok(dump.lines().filter(tells).map(|line| format!("{line}\n")).collect())
}

/// Everything that a database holds: the lines of a whole dump, in whatever order they came, and what its catalog knows
/// that a dump does not tell. Equal for equal databases, sorted.
pub fn told_in_full(cluster: &Cluster, database: &str) -> Result<Vec<String>> {
    let dump = cluster.pg_dump(database, &["--encoding=SQL_ASCII"])?;
    let catalog = cluster.psql(database, CATALOG)?;
    let mut lines: Vec<String> =
        dump.lines().filter(tells).chain(catalog.lines()).map(str::to_owned).collect();
    lines.sort();
    Ok(lines)
}

/// Whether a line of a dump is more than a comment or a random key.
fn tells(line: &&str) -> bool {
    let restriction = line.starts_with("\\restrict ") || line.starts_with("\\unrestrict ");
    !(line.is_empty() || line.starts_with("--") || restriction)
}

/// The name as an SQL identifier.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The dumps of production databases, each made once.
#[derive(Debug, Default)]
pub(super) struct Dumps {
    made: BTreeMap<Scale, PathBuf>,
}

impl Dumps {
    /// The dump of that scale. The database it is made of stays, as `production_<scale>`, to be compared with.
    pub(super) fn of(&mut self, stage: &Stage, scale: Scale) -> Result<PathBuf> {
        if let Some(path) = self.made.get(&scale) {
            return Ok(path.clone());
        }
        let database = source_database(scale);
        production(stage.cluster(), &database, scale)?;
        let path = stage.scratch().path().join(format!("{database}.dump"));
        dump(stage.cluster(), &database, &path)?;
        stage.scratch().account().own(&path)?;
        self.made.insert(scale, path.clone());
        Ok(path)
    }
}

/// The database that the shared dump of that scale was made of.
pub fn source_database(scale: Scale) -> String {
    format!("production_{}", scale.name())
}

/// Puts a file at `to`, as another name for `from` where the file system can.
pub(super) fn link(from: &Path, to: &Path) -> Result<()> {
    if fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    fs::copy(from, to).map(drop).doing(|| format!("copy {} to {}", from.display(), to.display()))
}
