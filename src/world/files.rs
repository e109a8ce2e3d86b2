//! A dump that consists of files: a folder as `pg_dump -Fd` writes it, here or on the backup server, or a tar file.
//!
//! Whichever it is, it becomes the head of an archive, and for each block of rows the files that it is made of. Of what
//! is in a tar file only the headers are read, and what lies between small files.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use url::Url;

use super::archive::ArchiveError;
use super::disk;
use super::source::{Reading, Source};
use super::unpack::Unpacked;
use super::web::{Meta, Web, WebError};
use crate::backup::{ListedFile, without_password};
use crate::contents::{
    Contents, ContentsError, Entry, FolderToc, Found, ObjectType, Packing, TAR_BLOCK, TOC, TarError,
    TarMember, TarNext, TarWalk,
};

/// The largest contents that are read, in bytes.
const MOST_CONTENTS: u64 = 512 << 20;
/// The largest list of large objects that is read, in bytes.
const MOST_LARGE_OBJECTS: u64 = 256 << 20;
/// What is nearer than this is read past, in bytes; beyond, it is asked for anew.
const NEAR: u64 = 128 << 10;
/// How much is asked for at once, at most, while one reads from header to header, in bytes.
const WIDEST: u64 = 1 << 20;

/// A file, by itself or within another.
#[derive(Debug, Clone)]
pub struct Stored {
    /// What it is called in the tar file that it is in.
    member: Option<String>,
    source: Arc<Source>,
    first: u64,
    end: u64,
}

impl Stored {
    /// How long it is, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.end.saturating_sub(self.first)
    }

    /// Its name, as messages have it.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.member {
            Some(member) => format!("{member} in {}", self.source.name()),
            None => self.source.name(),
        }
    }

    /// Begins to read it.
    #[must_use]
    pub fn read(&self, packing: Packing) -> Unpacked<'_> {
        let within = self.first != 0 || self.source.length().is_some_and(|length| length != self.end);
        let reading = if within { self.source.part(self.first, self.end) } else { self.source.whole(0) };
        Unpacked::new(self.name(), reading, packing)
    }

    async fn all(&self, packing: Packing, limit: u64) -> Result<Vec<u8>, ArchiveError> {
        let mut reading = self.read(packing);
        let mut all = Vec::new();
        while let Some(chunk) = reading.chunk().await? {
            if (all.len() + chunk.len()) as u64 > limit {
                return Err(ArchiveError::damaged(self.name(), format!("it has more than {limit} bytes")));
            }
            all.extend_from_slice(&chunk);
        }
        Ok(all)
    }
}

/// Files by their names.
pub type Files = BTreeMap<String, Stored>;

/// A dump that consists of files, put together.
#[derive(Debug)]
pub struct Assembled {
    /// What it holds.
    pub contents: Contents,
    /// The head of an archive that would hold the same, its blocks one behind the other.
    pub head: Vec<u8>,
    /// Where in that archive the last block would end, if each were as long as its files.
    pub end: u64,
    /// By dump id: what each block is made of.
    pub blocks: HashMap<i32, Pieces>,
}

/// What a block of data is made of.
#[derive(Debug, Clone)]
pub enum Pieces {
    /// Rows, in one file; and whether they are what COPY takes, which has an end of its own.
    Rows(Stored, Packing, bool),
    /// Large objects, by their OIDs, each in a file of its own.
    LargeObjects(Vec<(u32, Stored, Packing)>),
}

impl Pieces {
    /// How long it is, in bytes, as it is stored.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Pieces::Rows(file, ..) => file.bytes(),
            Pieces::LargeObjects(files) => files.iter().map(|(_, file, _)| file.bytes()).sum(),
        }
    }
}

/// What a dump on this machine holds that is a folder or a tar file.
///
/// # Errors
/// As [`in_tar`], [`in_folder`] and [`assemble`] have them.
pub async fn local(dump: &Path) -> Result<Assembled, ArchiveError> {
    let files = if dump.is_dir() {
        in_folder(dump)?
    } else {
        in_tar(&Arc::new(Source::local(dump.to_owned())?)).await?
    };
    assemble(&dump.display().to_string(), &files).await
}

/// What a dump on the backup server holds that is `found` not to be an archive. It must be the file that is `known`.
///
/// # Errors
/// [`ArchiveError::Unfit`] when it does not consist of files either; as [`in_tar`], [`in_listing`] and [`assemble`] have them.
pub async fn remote(web: &Web, url: &Url, known: &Meta, found: Found) -> Result<Assembled, ArchiveError> {
    let name = without_password(url);
    let files = match found {
        // Where its end is not known, parts of it cannot be asked for.
        Found::Tar if known.length.is_none() => {
            return Err(WebError::NoRanges { url: name }.into());
        }
        Found::Tar => {
            // A server that has only the whole file says so when it is asked for a part that is not its beginning.
            web.get_range(url, known, 1, 1).await?;
            in_tar(&Arc::new(Source::remote(web.clone(), url.clone(), known.clone()))).await?
        }
        Found::DirectoryToc if is_toc(url.path()) => in_listing(web, url, known).await?,
        _ => {
            return Err(ArchiveError::Unfit { name, source: ContentsError::NotAnArchive { found } });
        }
    };
    assemble(&name, &files).await
}

/// Whether a path leads to the contents of a dump that consists of files.
fn is_toc(path: &str) -> bool {
    path.rsplit('/').next() == Some(TOC)
}

/// The files in a tar file, which is on this machine, or on a server that serves parts.
///
/// # Errors
/// When it is damaged, or holds what no dump does; as reading has them.
pub async fn in_tar(source: &Arc<Source>) -> Result<Files, ArchiveError> {
    let unfit = |error: TarError| ArchiveError::damaged(source.name(), error);
    let length = source.length().unwrap_or(u64::MAX);
    let mut walk = TarWalk::default();
    let mut cursor = Cursor::of(source);
    let mut files = Files::new();
    let mut at = 0;
    while at < length {
        let cut = |name: &str| unfit(TarError::Cut { length, name: name.to_owned() });
        let Some(block) = cursor.take(at, TAR_BLOCK).await? else { return Err(cut("a header")) };
        let block: [u8; TAR_BLOCK] = block.try_into().map_err(|_| cut("a header"))?;
        match walk.header(&block, at).map_err(unfit)? {
            TarNext::End => break,
            TarNext::Told(bytes) => {
                let from = at.saturating_add(TAR_BLOCK as u64);
                let told = cursor.take(from, usize::try_from(bytes).unwrap_or(usize::MAX)).await?;
                walk.told(&told.ok_or_else(|| cut("a name"))?, at).map_err(unfit)?;
                at = from.saturating_add(bytes.next_multiple_of(TAR_BLOCK as u64));
            }
            TarNext::Header(None, next) => at = next,
            TarNext::Header(Some(member), next) => {
                let end = member.first.saturating_add(member.bytes);
                if end > length {
                    return Err(cut(&member.name));
                }
                let TarMember { name, first, .. } = member;
                let stored = Stored { member: Some(name.clone()), source: Arc::clone(source), first, end };
                if files.insert(name.clone(), stored).is_some() {
                    return Err(unfit(TarError::Twice { name }));
                }
                at = next;
            }
        }
    }
    Ok(files)
}

/// The files in a folder on this machine.
///
/// # Errors
/// As the disk has them.
pub fn in_folder(folder: &Path) -> Result<Files, ArchiveError> {
    let mut files = Files::new();
    for (name, is_folder) in disk::names(folder)? {
        let path = folder.join(&name);
        if is_folder {
            continue;
        }
        let source = Arc::new(Source::local(path)?);
        let end = source.length().unwrap_or_default();
        files.insert(name, Stored { member: None, source, first: 0, end });
    }
    Ok(files)
}

/// The files in a folder on the backup server, whose contents are at `toc`, in the version `known`. What the listing does
/// not tell exactly, the server is asked for.
///
/// # Errors
/// When the folder is not listed; as the web has them.
pub async fn in_listing(web: &Web, toc: &Url, known: &Meta) -> Result<Files, ArchiveError> {
    let here = |url: &Url, meta: Meta| {
        let source = Source::remote(web.clone(), url.clone(), meta);
        Stored { member: None, end: source.length().unwrap_or_default(), source: Arc::new(source), first: 0 }
    };
    let mut folder = toc.clone();
    if let Ok(mut path) = folder.path_segments_mut() {
        path.pop().push("");
    }
    let listed = web.listing(&folder, |_| true).await?.files;
    let mut files = Files::from([(TOC.to_owned(), here(toc, known.clone()))]);
    let (exact, unsure): (Vec<ListedFile>, Vec<ListedFile>) =
        listed.into_iter().filter(|file| file.name != TOC).partition(|file| file.exact);
    for file in exact {
        let meta = Meta {
            url: file.url.clone(),
            length: file.size_hint,
            validator: None,
            last_modified: None,
            accept_ranges: true,
        };
        files.insert(file.name, here(&file.url, meta));
    }
    let metas = web.heads(unsure.iter().map(|file| file.url.clone()).collect()).await;
    for (file, meta) in unsure.into_iter().zip(metas) {
        files.insert(file.name, here(&file.url, meta?));
    }
    Ok(files)
}

/// Puts a dump together from its files. `name` is what it is called in messages.
///
/// # Errors
/// When there are no contents among the files, or one is missing that the contents name.
pub async fn assemble(name: &str, files: &Files) -> Result<Assembled, ArchiveError> {
    let damaged = |cause: String| ArchiveError::damaged(name, cause);
    let mut tocs = files.keys().filter(|path| is_toc(path));
    let toc = tocs
        .next()
        .ok_or_else(|| damaged(format!("it holds no {TOC}, which every dump by pg_dump -Fd or -Ft has")))?;
    if let Some(another) = tocs.next() {
        return Err(damaged(format!("it holds two dumps: {toc} and {another}")));
    }
    let folder = toc.strip_suffix(TOC).unwrap_or_default();
    let find = |file: &str| {
        let names = Packing::names(&format!("{folder}{file}"));
        names.into_iter().find_map(|(name, packing)| Some((files.get(&name)?, packing)))
    };
    let unfit = |source| ArchiveError::Unfit { name: name.to_owned(), source };
    let bytes = files.get(toc).ok_or_else(|| damaged(format!("it holds no {TOC}")))?;
    let toc = FolderToc::read(&bytes.all(Packing::Plain, MOST_CONTENTS).await?).map_err(unfit)?;
    let (head, _) = toc.head(|_| 0);
    let contents = Contents::read(head.as_slice()).map_err(unfit)?;
    let entries: HashMap<i32, &Entry> =
        contents.entries().iter().map(|entry| (entry.dump_id, entry)).collect();
    let mut blocks = HashMap::new();
    for (id, file) in toc.files() {
        let entry = entries.get(&id);
        let missing = |file: &str| damaged(format!("there is no {file}, in which data should be"));
        let pieces = if entry.is_some_and(|entry| entry.desc == ObjectType::Blobs) {
            // pg_dump -Ft names another file in the contents than the one that it writes.
            let lists = [file.to_owned(), format!("blobs_{id}.toc"), "blobs.toc".to_owned()];
            let list = lists.iter().find_map(|list| find(list)).ok_or_else(|| missing(file))?;
            let list = list.0.all(list.1, MOST_LARGE_OBJECTS).await?;
            let mut objects = Vec::new();
            for line in String::from_utf8_lossy(&list).lines() {
                let told = line.split_once(' ').and_then(|(oid, file)| Some((oid.parse().ok()?, file)));
                let (oid, file) =
                    told.ok_or_else(|| damaged(format!("its list of large objects has {line:?}")))?;
                let (stored, packing) = find(file).ok_or_else(|| missing(file))?;
                objects.push((oid, stored.clone(), packing));
            }
            Pieces::LargeObjects(objects)
        } else {
            let (stored, packing) = find(file).ok_or_else(|| missing(file))?;
            let copies = entry
                .is_some_and(|entry| entry.copy_stmt.as_deref().is_some_and(|copy| !copy.trim().is_empty()));
            Pieces::Rows(stored.clone(), packing, copies)
        };
        blocks.insert(id, pieces);
    }
    let (head, end) = toc.head(|id| blocks.get(&id).map_or(0, Pieces::bytes));
    let contents = Contents::read(head.as_slice()).map_err(unfit)?;
    Ok(Assembled { contents, head, end, blocks })
}

/// A place in a file that is read here and there, in windows: what was asked for in vain would come all the same.
struct Cursor<'a> {
    source: &'a Source,
    reading: Option<Reading<'a>>,
    at: u64,
    rest: Bytes,
    window: u64,
}

impl Cursor<'_> {
    fn of(source: &Source) -> Cursor<'_> {
        Cursor { source, reading: None, at: 0, rest: Bytes::new(), window: NEAR }
    }

    /// So many bytes from `at` on, or `None` when the file ends before.
    async fn take(&mut self, at: u64, count: usize) -> Result<Option<Vec<u8>>, ArchiveError> {
        let length = self.source.length().unwrap_or(u64::MAX);
        if at.saturating_add(count as u64) > length {
            return Ok(None);
        }
        if at < self.at || at - self.at > NEAR + self.rest.len() as u64 {
            (self.reading, self.at, self.rest, self.window) = (None, at, Bytes::new(), NEAR);
        }
        let mut taken = Vec::with_capacity(count);
        while taken.len() < count {
            if self.rest.is_empty() && !self.more(length).await? {
                return Ok(None);
            }
            let past = usize::try_from(at.saturating_sub(self.at)).unwrap_or(usize::MAX).min(self.rest.len());
            let _past = self.rest.split_to(past);
            let wanted = (count - taken.len()).min(self.rest.len());
            taken.extend_from_slice(&self.rest.split_to(wanted));
            self.at = self.at.saturating_add((past + wanted) as u64);
        }
        Ok(Some(taken))
    }

    /// Reads on, in a window twice as wide where one ends. Says whether something came.
    async fn more(&mut self, length: u64) -> Result<bool, ArchiveError> {
        if let Some(reading) = &mut self.reading
            && let Some(chunk) = reading.chunk().await?
        {
            self.rest = chunk;
            return Ok(true);
        }
        let end = self.at.saturating_add(self.window).min(length);
        self.window = self.window.saturating_mul(2).min(WIDEST);
        let reading = self.reading.insert(self.source.part(self.at, end));
        self.rest = reading.chunk().await?.unwrap_or_default();
        Ok(!self.rest.is_empty())
    }
}
