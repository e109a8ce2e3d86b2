//! Decides what of the dump is restored, and writes it down: as a list for `pg_restore -L` beside the dump, and in
//! the journal, entry by entry, with the reason of each that is left out.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use journal::event::{Detail, Failure};
use journal::step::{Context, Intent, Observed, Step};
use serde::{Deserialize, Serialize};

use super::contents::{Blocks, Head, Way, way};
use super::reader::{self, Reader, choose};
use super::{Heads, Secrets, Settings, fetch, outcome, read, server, shortened, write};
use crate::contents::{Contents, Packing, QualifiedName, Rules, Selection, filter};
use crate::world::disk::Growing;
use crate::world::postgres::literal;
use crate::world::source::Source;
use crate::world::unpack::Unpacked;
use crate::world::{archive, disk};

/// What a compressed tar file is called when it is unpacked.
const UNPACKED: &str = "unpacked.tar";

/// The step.
pub struct Catalog {
    /// Where.
    pub settings: Settings,
    /// User and password of the backup server.
    pub secrets: Secrets,
    /// What was read already.
    pub heads: Heads,
    /// What is wanted.
    pub given: Given,
}

/// Its parameters.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Given {
    /// The dump, when no fetch comes before.
    pub dump: Option<PathBuf>,
    /// The attachment that holds the [`Rules`].
    pub rules: String,
}

/// What kind of dump is restored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// An archive: pg_dump -Fc.
    #[default]
    Archive,
    /// Files, in a folder or a tar file: pg_dump -Fd and -Ft.
    Files,
    /// Plain SQL: pg_dump -Fp.
    Sql,
}

/// What later steps know of the selection.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Selected {
    /// What kind of dump it is.
    #[serde(default)]
    pub form: Form,
    /// SHA-256 of the contents of a dump that consists of files, and of where they are, in hexadecimal.
    #[serde(default)]
    pub head_sha256: Option<String>,
    /// The dump, when it is on this machine.
    pub dump: Option<PathBuf>,
    /// The pg_restore that restores it. Runs of before there was a choice have none.
    #[serde(default)]
    pub reader: Option<Reader>,
    /// The list for `pg_restore -L` from that file.
    pub list: Option<PathBuf>,
    /// SHA-256 of the list, in hexadecimal.
    pub list_sha256: Option<String>,
    /// Entries that are restored.
    pub kept: u64,
    /// Entries that are not.
    pub dropped: u64,
    /// The attachment that holds the [`Selection`].
    pub selection: String,
    /// The attachment that holds what is [`Expected`] of the copy.
    pub expected: String,
    /// Rules that match nothing.
    pub warnings: Vec<String>,
    /// Roles that kept entries grant to, and that do not exist.
    pub missing_grantees: Vec<String>,
}

/// What the copy must have when everything went through.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Expected {
    /// Its tables: schema and name.
    pub tables: Vec<(String, String)>,
    /// Constraints that are not validated in production either: schema, and `<table> <constraint>`.
    pub not_valid: Vec<(String, String)>,
    /// Tables whose rows are left out.
    #[serde(default)]
    pub without_rows: Vec<(String, String)>,
    /// The encoding of these names, when it is known.
    #[serde(default)]
    pub encoding: Option<String>,
    /// Whether they were read byte by byte, since they are not UTF-8.
    #[serde(default)]
    pub byte_by_byte: bool,
    /// Whether nothing is known of these: a dump in plain SQL has no contents to tell.
    #[serde(default)]
    pub unknown: bool,
}

impl Expected {
    fn of(selection: &Selection, contents: &Contents) -> Expected {
        let tables = selection.kept_tables(contents);
        let not_valid = selection.not_valid_constraints(contents);
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let named =
            |tables: Vec<QualifiedName>| tables.into_iter().map(|table| (table.schema, table.name)).collect();
        Expected {
            tables: named(tables),
            without_rows: named(selection.tables_without_rows(contents)),
            not_valid: not_valid.iter().map(|entry| (text(&entry.namespace), text(&entry.tag))).collect(),
            encoding: contents.encoding(),
            byte_by_byte: contents.has_foreign_text(),
            unknown: false,
        }
    }
}

impl Catalog {
    /// The file to restore from; none when the server's is, part by part.
    async fn dump(&self, at: &Context<'_>) -> Result<Option<PathBuf>, Failure> {
        if let Some(dump) = &self.given.dump {
            return Ok(Some(dump.clone()));
        }
        if way(at).await? != Way::File {
            return Ok(None);
        }
        if let Some(fetched) = at.outcome_of("fetch").await {
            return Ok(Some(read::<fetch::Fetched>(&fetched)?.file));
        }
        // The fetch was skipped since the dump was there.
        let found: super::preflight::Outcome = outcome(at, "preflight").await?;
        let backup = found.backup.ok_or_else(|| Failure::new("there is no dump to restore"))?;
        Ok(Some(self.settings.tmpdir.join(backup.file_name()?)))
    }

    async fn rules(&self, at: &Context<'_>) -> Result<Rules, Failure> {
        super::attached(at, &self.given.rules, "the rules of the filter").await
    }

    async fn select(&self, at: &Context<'_>) -> Result<Selected, Failure> {
        let Some(dump) = self.dump(at).await? else {
            if way(at).await? == Way::Sql {
                return self.select_all(at, None, &super::backup(at).await?.url).await;
            }
            let backup = super::backup(at).await?;
            let head = self.heads.of(&self.secrets, &backup).await?;
            return self.select_from_head(at, &head).await;
        };
        match archive::form_of(&Source::local(dump.clone())?).await? {
            archive::Form::Archive => self.select_from_archive(at, dump).await,
            archive::Form::Folder | archive::Form::Tar(Packing::Plain) => {
                self.select_from_files(at, dump).await
            }
            archive::Form::Tar(packing) => {
                let tar = self.unpack(at, &dump, packing).await?;
                self.select_from_files(at, tar).await
            }
            archive::Form::Sql(_) => {
                let name = dump.display().to_string();
                self.select_all(at, Some(dump), &name).await
            }
        }
    }

    async fn select_from_archive(&self, at: &Context<'_>, dump: PathBuf) -> Result<Selected, Failure> {
        let contents = archive::local(&dump)?;
        let source = reader::Source { name: dump.display().to_string(), contents: &contents, head: None };
        let reader = Some(choose(at, &self.settings, &source).await?);
        let (selected, selection) = self.select_from(at, &contents).await?;
        let text = selection.list(&contents);
        let list = self.settings.workspace(at.run()).join("restore.list");
        disk::make_private_folder(&self.settings.workspace(at.run()))?;
        disk::write_whole(&list, text.as_bytes())?;
        let list_sha256 = Some(disk::sha256(text.as_bytes()));
        Ok(Selected { dump: Some(dump), reader, list: Some(list), list_sha256, ..selected })
    }

    async fn select_from_files(&self, at: &Context<'_>, dump: PathBuf) -> Result<Selected, Failure> {
        let head = self.heads.of_files(&dump).await?;
        Ok(Selected { dump: Some(dump), ..self.select_from_head(at, &head).await? })
    }

    async fn select_from_head(&self, at: &Context<'_>, head: &Head) -> Result<Selected, Failure> {
        let bytes = head.original.bytes();
        let source = reader::Source { name: head.name.clone(), contents: &head.contents, head: Some(bytes) };
        let reader = Some(choose(at, &self.settings, &source).await?);
        let (selected, _) = self.select_from(at, &head.contents).await?;
        let selected = Selected { reader, ..selected };
        Ok(match &head.blocks {
            Blocks::Archive { .. } => selected,
            Blocks::Files(_) => {
                Selected { form: Form::Files, head_sha256: Some(disk::sha256(bytes)), ..selected }
            }
        })
    }

    /// All of a dump in plain SQL: nothing can be left out of it.
    async fn select_all(
        &self,
        at: &Context<'_>,
        dump: Option<PathBuf>,
        name: &str,
    ) -> Result<Selected, Failure> {
        if !self.rules(at).await?.keep_everything() {
            return Err(cannot_be_filtered(name));
        }
        let expected = Expected {
            tables: Vec::new(),
            not_valid: Vec::new(),
            without_rows: Vec::new(),
            encoding: None,
            byte_by_byte: false,
            unknown: true,
        };
        Ok(Selected {
            form: Form::Sql,
            head_sha256: None,
            dump,
            reader: None,
            list: None,
            list_sha256: None,
            kept: 0,
            dropped: 0,
            selection: super::attach(at, &Selection::default()).await?,
            expected: super::attach(at, &expected).await?,
            warnings: Vec::new(),
            missing_grantees: Vec::new(),
        })
    }

    /// Unpacks a compressed tar file into the run's own folder. Nothing is put there but the tar file itself.
    async fn unpack(&self, at: &Context<'_>, dump: &Path, packing: Packing) -> Result<PathBuf, Failure> {
        let folder = self.settings.workspace(at.run());
        disk::make_private_folder(&folder)?;
        let tar = folder.join(UNPACKED);
        let source = Source::local(dump.to_owned())?;
        let mut reading = Unpacked::new(source.name(), source.whole(0), packing);
        let mut file = Growing::open(&tar, 0)?;
        while let Some(chunk) = reading.chunk().await? {
            file.write(&chunk).map_err(|error| disk::refused("write", &tar, &error))?;
            at.progress(reading.came(), source.length(), "bytes");
        }
        file.sync()?;
        Ok(tar)
    }

    async fn select_from(
        &self,
        at: &Context<'_>,
        contents: &Contents,
    ) -> Result<(Selected, Selection), Failure> {
        let selection = filter(contents, &self.rules(at).await?);
        let missing_grantees = self.look_for_roles(at, contents, &selection).await?;
        let selected = Selected {
            form: Form::Archive,
            head_sha256: None,
            dump: None,
            reader: None,
            list: None,
            list_sha256: None,
            kept: selection.kept.len() as u64,
            dropped: selection.dropped.len() as u64,
            selection: super::attach(at, &selection).await?,
            expected: super::attach(at, &Expected::of(&selection, contents)).await?,
            warnings: shortened(selection.warnings.iter().map(ToString::to_string)),
            missing_grantees: shortened(missing_grantees),
        };
        Ok((selected, selection))
    }

    /// Every owner must be there, or pg_restore would fail late. Grants to roles that are not there are lost, and
    /// that is told.
    async fn look_for_roles(
        &self,
        at: &Context<'_>,
        contents: &Contents,
        selection: &Selection,
    ) -> Result<Vec<String>, Failure> {
        let missing = self.missing_roles(at, contents, selection.roles(contents)).await?;
        let owns =
            |role: &String| selection.kept_entries(contents).any(|entry| entry.owner.as_ref() == Some(role));
        let owners: Vec<&str> =
            missing.iter().filter(|(role, _)| owns(role)).map(|(_, told)| told.as_str()).collect();
        if owners.is_empty() {
            return Ok(missing.into_iter().map(|(_, told)| told).collect());
        }
        Err(Failure::new(format!(
            "the dump's objects belong to roles that do not exist: {}",
            owners.join(", ")
        ))
        .hint(format!("create them (pg_staging init {}), then try again", self.settings.section)))
    }

    /// Those that do not exist, and what each is called to people. Names of roles are the same bytes in all databases,
    /// whatever encoding those have: so the copy is asked, which takes the dump's names as it will when they come from
    /// pg_restore.
    async fn missing_roles(
        &self,
        at: &Context<'_>,
        contents: &Contents,
        roles: BTreeSet<String>,
    ) -> Result<Vec<(String, String)>, Failure> {
        if roles.is_empty() {
            return Ok(Vec::new());
        }
        let session =
            server(at, &self.settings).await?.connect(&self.settings.database, "pg_staging").await?;
        let mut missing = Vec::new();
        for row in session.rows(&missing_of(contents, &roles)).await? {
            let mut fields = row.into_iter();
            let place = fields.next().flatten().and_then(|place| place.parse().ok());
            let Some(role) = place.and_then(|place| roles.iter().nth(place)) else { continue };
            missing.push((role.clone(), fields.next().flatten().unwrap_or_else(|| role.clone())));
        }
        Ok(missing)
    }
}

/// A query of those among these names that no role has: which, counted from 0, and the name as text, unless the copy does
/// not know what its bytes mean.
fn missing_of(contents: &Contents, roles: &BTreeSet<String>) -> String {
    let encoding = literal(contents.encoding().as_deref().unwrap_or("UTF8"));
    let names: Vec<String> = roles.iter().map(|role| literal(&disk::hex(&contents.bytes_of(role)))).collect();
    format!(
        "SELECT place - 1, CASE getdatabaseencoding() WHEN 'SQL_ASCII' THEN NULL ELSE name END \
         FROM (SELECT place, convert_from(decode(hex, 'hex'), {encoding}) AS name \
               FROM unnest(ARRAY[{}]) WITH ORDINALITY AS given (hex, place)) AS role \
         WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role.name::name) ORDER BY place",
        names.join(", ")
    )
}

/// A dump in plain SQL, and rules that would leave something out of it.
pub(super) fn cannot_be_filtered(name: &str) -> Failure {
    Failure::new(format!("{name} is plain SQL, of which nothing can be left out"))
        .because("schemas, schemas_nodata, tablename_nodata_regexp or replication are configured")
        .hint("make the backup with pg_dump -Fc, or take these options out")
}

#[async_trait]
impl Step for Catalog {
    async fn intend(&self, at: &Context<'_>) -> Result<Intent, Failure> {
        let list = self.settings.workspace(at.run()).join("restore.list");
        Ok(Intent::Do(write(&serde_json::json!({ "list": list, "rules": self.given.rules }))))
    }

    /// Deciding again costs little and gives the same.
    async fn observe(&self, _: &Context<'_>, _: &Detail) -> Result<Observed, Failure> {
        Ok(Observed::Absent)
    }

    async fn act(&self, at: &Context<'_>, _: &Detail) -> Result<Detail, Failure> {
        Ok(write(&self.select(at).await?))
    }

    async fn undo(&self, at: &Context<'_>, _: &Detail) -> Result<Detail, Failure> {
        let list = self.settings.workspace(at.run()).join("restore.list");
        disk::remove_file(&disk::with_suffix(&list, ".new"))?;
        disk::remove_file(&list)?;
        disk::remove_file(&self.settings.workspace(at.run()).join(UNPACKED))?;
        Ok(Detail::new())
    }
}
