//! A folder of backups, however many pages its server takes to list it; and what many files are at once.

use std::collections::HashSet;

use tokio::task::JoinSet;
use url::Url;

use super::{Meta, Web, WebError};
use crate::backup::{self, Backup, Listing, ListingError, without_password};

/// How many pages a listing may have. An object store puts a thousand files on each.
const MAX_PAGES: usize = 10_000;

/// How many files are asked about at the same time.
const AT_ONCE: usize = 8;

impl Web {
    /// The dumps of one database in the folder that `folder` lists, oldest first. Only their names are kept of what
    /// the pages list.
    ///
    /// # Errors
    /// As [`WebError`] has them, and when a page is no listing or leads back to one that was read.
    pub async fn dumps(&self, folder: &Url, dbname: &str) -> Result<Vec<Backup>, WebError> {
        let all = self.listing(folder, |name| backup::belongs_to(dbname, name)).await?;
        Ok(backup::dumps(&all, dbname))
    }

    /// What is in the folder that `folder` lists, and has a name that is wanted.
    ///
    /// # Errors
    /// As [`Web::dumps`] has them.
    pub async fn listing(&self, folder: &Url, wanted: impl Fn(&str) -> bool) -> Result<Listing, WebError> {
        let mut all = Listing::default();
        let mut read = HashSet::new();
        let mut next = Some(folder.clone());
        while let Some(url) = next {
            if read.len() >= MAX_PAGES || !read.insert(url.clone()) {
                return Err(ListingError::Endless { url: without_password(&url) }.into());
            }
            let page = self.list(&url).await?;
            let mut listing = backup::parse(&page.body, page.content_type.as_deref(), &page.final_url)?;
            next = listing.next.take();
            listing.files.retain(|file| wanted(&file.name));
            listing.folders.retain(|name, _| wanted(name));
            all.append(listing);
        }
        Ok(all)
    }

    /// What each of these files is, in their order.
    pub async fn heads(&self, urls: Vec<Url>) -> Vec<Result<Meta, WebError>> {
        let mut waiting = urls.into_iter().enumerate();
        let mut asked = JoinSet::new();
        let mut found = Vec::new();
        let ask = |asked: &mut JoinSet<_>, (at, url): (usize, Url)| {
            let web = self.clone();
            asked.spawn(async move { (at, web.head(&url).await) });
        };
        waiting.by_ref().take(AT_ONCE).for_each(|next| ask(&mut asked, next));
        while let Some(answer) = asked.join_next().await {
            // A task ends without an answer only when the program does.
            found.extend(answer.ok());
            waiting.by_ref().take(1).for_each(|next| ask(&mut asked, next));
        }
        found.sort_by_key(|(at, _)| *at);
        found.into_iter().map(|(_, meta)| meta).collect()
    }
}
