//! Taking values by key. Each `take_*` gives nothing when the key is absent,
//! and also when its value is wrong; then what is wrong has been noted.

use std::convert::Infallible;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeInteger, DeValue};

use super::duration::words;
use super::{Section, nearest, parse_duration, start};
use crate::diagnostic::Level;

type Value<'v> = Spanned<DeValue<'v>>;

impl<'f> Section<'f> {
    /// A string.
    #[must_use]
    pub fn take_string(&self, key: &str) -> Option<String> {
        self.string_at(key).map(|(text, _)| text.to_owned())
    }

    /// `true` or `false`.
    #[must_use]
    pub fn take_bool(&self, key: &str) -> Option<bool> {
        let value = self.find(key)?;
        value
            .get_ref()
            .as_bool()
            .or_else(|| self.wrong_type(key, value, "true or false"))
    }

    /// A whole number within a range.
    #[must_use]
    pub fn take_u64(&self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let value = self.find(key)?;
        let Some(integer) = value.get_ref().as_integer() else {
            return self.wrong_type(key, value, "a whole number");
        };
        let number = to_u64(integer).filter(|number| range.contains(number));
        if number.is_none() {
            let help = format!("use a number from {} to {}", range.start(), range.end());
            self.refuse::<()>(value, format!("'{key}' is out of range"), help);
        }
        number
    }

    /// A span of time within a range: `30s`, `5m`, `24h`, `30d` or whole seconds.
    #[must_use]
    pub fn take_duration(&self, key: &str, range: RangeInclusive<Duration>) -> Option<Duration> {
        let value = self.find(key)?;
        let duration = match value.get_ref() {
            DeValue::Integer(integer) => to_u64(integer).map(Duration::from_secs),
            DeValue::String(text) => match parse_duration(text) {
                Ok(duration) => Some(duration),
                Err(error) => {
                    return self.refuse(value, format!("'{key}' is {error}"), String::new());
                }
            },
            _ => return self.wrong_type(key, value, "a duration such as '30s', '5m' or '24h'"),
        };
        let duration = duration.filter(|duration| range.contains(duration));
        if duration.is_none() {
            let help = format!(
                "use a duration from {} to {}",
                words(*range.start()),
                words(*range.end())
            );
            self.refuse::<()>(value, format!("'{key}' is out of range"), help);
        }
        duration
    }

    /// A span of time, as whole seconds within a range.
    #[must_use]
    pub fn take_secs(&self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let (from, to) = (
            Duration::from_secs(*range.start()),
            Duration::from_secs(*range.end()),
        );
        self.take_duration(key, from..=to)
            .map(|duration| duration.as_secs())
    }

    /// One of a few words, each of which stands for a value.
    #[must_use]
    pub fn take_choice<T: Clone>(&self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let (text, value) = self.string_at(key)?;
        if let Some((_, choice)) = choices.iter().find(|(word, _)| *word == text) {
            return Some(choice.clone());
        }
        let help = nearest(text, choices.iter().map(|(word, _)| *word)).map_or_else(
            || {
                let words: Vec<_> = choices
                    .iter()
                    .map(|(word, _)| format!("'{word}'"))
                    .collect();
                format!("use one of {}", words.join(", "))
            },
            |near| format!("did you mean '{near}'?"),
        );
        self.refuse(
            value,
            format!("'{key}' has the unknown value '{text}'"),
            help,
        )
    }

    /// A list of strings.
    #[must_use]
    pub fn take_string_list(&self, key: &str) -> Option<Vec<String>> {
        self.take_list_with(key, |text| Ok::<_, Infallible>(text.to_owned()))
    }

    /// A string that `read` turns into a value; its error says what is wrong
    /// with the value, and what to write instead.
    #[must_use]
    pub fn take_with<T, E: std::fmt::Display>(
        &self,
        key: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let (text, value) = self.string_at(key)?;
        match read(text) {
            Ok(read) => Some(read),
            Err(error) => self.refuse(value, format!("'{key}' is wrong: {error}"), String::new()),
        }
    }

    /// A list of strings, each of which `read` turns into a value.
    #[must_use]
    pub fn take_list_with<T, E: std::fmt::Display>(
        &self,
        key: &str,
        mut read: impl FnMut(&str) -> Result<T, E>,
    ) -> Option<Vec<T>> {
        let value = self.find(key)?;
        let Some(items) = value.get_ref().as_array() else {
            return self.wrong_type(key, value, "a list of strings");
        };
        let read_item = |item: &Value<'_>| {
            let Some(text) = item.get_ref().as_str() else {
                return self.wrong_type(key, item, "a list of strings");
            };
            match read(text) {
                Ok(read) => Some(read),
                Err(error) => self.refuse(
                    item,
                    format!("'{key}' has a wrong entry: {error}"),
                    String::new(),
                ),
            }
        };
        // Look at every entry, so that every wrong one is named.
        let read: Vec<Option<T>> = items.iter().map(read_item).collect();
        read.into_iter().collect()
    }

    /// One string or a list of them, each of which `read` turns into a value.
    #[must_use]
    pub fn take_one_or_list_with<T, E: std::fmt::Display>(
        &self,
        key: &str,
        read: impl FnMut(&str) -> Result<T, E>,
    ) -> Option<Vec<T>> {
        let is_string = self.find(key)?.get_ref().is_str();
        if is_string {
            self.take_with(key, read).map(|one| vec![one])
        } else {
            self.take_list_with(key, read)
        }
    }

    /// A table: `[key]`, or nothing at all, which gives an absent section.
    #[must_use]
    pub fn section(&self, key: &str) -> Section<'f> {
        let value = self.find(key);
        let table = value.and_then(|value| {
            value
                .get_ref()
                .as_table()
                .or_else(|| self.wrong_type(key, value, "a section"))
        });
        self.file.open(
            self.path_to(&[key]),
            table,
            value.map_or(self.offset, start),
        )
    }

    /// Whether there is a table `[key]`, whose content is not looked at.
    #[must_use]
    pub fn take_any_section(&self, key: &str) -> bool {
        self.find(key).is_some_and(|value| {
            value.get_ref().is_table() || self.wrong_type::<()>(key, value, "a section").is_some()
        })
    }

    /// Tables in a list: `[[key]]`, as often as wanted.
    #[must_use]
    pub fn take_array_of_sections(&self, key: &str) -> Vec<Section<'f>> {
        let Some(value) = self.find(key) else {
            return Vec::new();
        };
        let Some(items) = value.get_ref().as_array() else {
            self.wrong_type::<()>(key, value, "a list of sections, each begun with [[...]]");
            return Vec::new();
        };
        let open = |(index, item): (usize, &'f Value<'f>)| {
            let Some(table) = item.get_ref().as_table() else {
                self.wrong_type::<()>(key, item, "a list of sections");
                return None;
            };
            Some(self.file.open(
                self.path_to(&[key, &index.to_string()]),
                Some(table),
                start(item),
            ))
        };
        items.iter().enumerate().filter_map(open).collect()
    }

    /// The names of the section's keys; does not make them known.
    pub fn keys(&self) -> impl Iterator<Item = &'f str> + use<'f> {
        self.table
            .into_iter()
            .flat_map(|table| table.keys())
            .map(|key| key.get_ref().as_ref())
    }

    fn string_at(&self, key: &str) -> Option<(&'f str, &'f Value<'f>)> {
        let value = self.find(key)?;
        let text = value
            .get_ref()
            .as_str()
            .or_else(|| self.wrong_type(key, value, "a string"))?;
        Some((text, value))
    }

    fn path_to(&self, names: &[&str]) -> Vec<String> {
        self.path
            .iter()
            .cloned()
            .chain(names.iter().map(|&name| name.to_owned()))
            .collect()
    }

    fn wrong_type<T>(&self, key: &str, value: &Value<'_>, wanted: &str) -> Option<T> {
        let found = match value.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a section",
        };
        self.refuse(
            value,
            format!("'{key}' is {found}"),
            format!("write {wanted}"),
        )
    }

    /// Notes an error at a value, and gives nothing.
    fn refuse<T>(&self, value: &Value<'_>, message: String, help: String) -> Option<T> {
        self.file.note(start(value), Level::Error, message, help);
        None
    }
}

fn to_u64(integer: &DeInteger<'_>) -> Option<u64> {
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}
