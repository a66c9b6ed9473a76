//! Regions by ISO 3166-2: the 83 subjects of Russia, the codes that ISO lists for other places of Russia's numbering plan, and
//! every other country as one region. How the registry of numbers spells their names is in [`spelling`](super::spelling).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::country::Country;
use super::spelling;

/// A region by ISO 3166-2, or a whole country by ISO 3166-1. Small: to be copied.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Region(u16);

/// A federal district of Russia, as they are since November 2018.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum District {
    /// Центральный.
    Central,
    /// Северо-Западный.
    NorthWestern,
    /// Южный.
    Southern,
    /// Северо-Кавказский.
    NorthCaucasian,
    /// Приволжский.
    Volga,
    /// Уральский.
    Ural,
    /// Сибирский.
    Siberian,
    /// Дальневосточный.
    FarEastern,
}

impl Region {
    /// From a code in capitals: `RU-SVE`, `KZ`.
    pub fn parse(code: &str) -> Option<Region> {
        match SUBJECTS.binary_search_by(|row| row.0.cmp(code)) {
            Ok(at) => u16::try_from(at).ok().map(Region),
            Err(_) => Country::parse(code).map(Region::from),
        }
    }

    /// From a code or from any spelling of the registry: `RU-SVE`, `Свердловская обл.`, `г. Сочи|Краснодарский край`. Of several
    /// regions in one text the first; see [`spelling::read`] for all of them.
    pub fn read(text: &str) -> Option<Region> {
        let code = text.trim().to_ascii_uppercase();
        Region::parse(&code).or_else(|| {
            let spelled = spelling::read(text).ok()?;
            Some(spelled.regions.first().copied().unwrap_or(spelled.country.into()))
        })
    }

    /// A country as the list of its one region.
    pub(super) fn countries(country: Country) -> &'static [Region] {
        static ALL: [Region; Country::COUNT] = {
            let mut all = [Region(0); Country::COUNT];
            let mut i = 0;
            while i < all.len() {
                all[i] = Region((SUBJECTS.len() + i) as u16);
                i += 1;
            }
            all
        };
        let at = usize::from(country.0);
        ALL.get(at..=at).unwrap_or_default()
    }

    /// All of them, countries last.
    pub fn all() -> impl Iterator<Item = Region> {
        (0..).map(Region).take(SUBJECTS.len()).chain(Country::all().map(Region::from))
    }

    /// The code, e.g. `RU-SVE`.
    pub fn code(self) -> &'static str {
        match self.subject() {
            Ok(row) => row.0,
            Err(country) => country.code(),
        }
    }

    /// The name for people: of a subject as the registry of numbers says it, of a country in English.
    pub fn name(self) -> &'static str {
        match self.subject() {
            Ok(row) => row.2,
            Err(country) => country.name(),
        }
    }

    /// The federal district; none outside Russia and where none is named.
    pub fn district(self) -> Option<District> {
        self.subject().ok().and_then(|row| row.1)
    }

    /// The country of the code, by ISO 3166-1.
    pub fn country(self) -> Country {
        match self.subject() {
            // Every subject's code begins with a country's; a test walks through them.
            Ok(row) => Country::parse(&row.0[..2]).unwrap_or(Country::RU),
            Err(country) => country,
        }
    }

    /// The city that is a region of its own.
    pub fn city(self) -> Option<&'static str> {
        self.name().strip_prefix("г. ")
    }

    fn subject(self) -> Result<&'static (&'static str, Option<District>, &'static str), Country> {
        let at = usize::from(self.0);
        // The constructors make no others, so that the number of a country fits.
        SUBJECTS.get(at).ok_or_else(|| Country(u8::try_from(at - SUBJECTS.len()).unwrap_or_default()))
    }
}

impl From<Country> for Region {
    fn from(country: Country) -> Region {
        Region(SUBJECTS.len() as u16 + u16::from(country.0))
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl Serialize for Region {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.code())
    }
}

impl<'de> Deserialize<'de> for Region {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Region, D::Error> {
        let code = std::borrow::Cow::<str>::deserialize(d)?;
        Region::parse(&code).ok_or_else(|| serde::de::Error::custom("not a region by ISO 3166-2"))
    }
}

impl District {
    /// The name, e.g. `Уральский федеральный округ`.
    pub fn name(self) -> &'static str {
        match self {
            District::Central => "Центральный федеральный округ",
            District::NorthWestern => "Северо-Западный федеральный округ",
            District::Southern => "Южный федеральный округ",
            District::NorthCaucasian => "Северо-Кавказский федеральный округ",
            District::Volga => "Приволжский федеральный округ",
            District::Ural => "Уральский федеральный округ",
            District::Siberian => "Сибирский федеральный округ",
            District::FarEastern => "Дальневосточный федеральный округ",
        }
    }
}

impl fmt::Display for District {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

use District::*;

/// Code, federal district, name. By code.
#[rustfmt::skip]
static SUBJECTS: [(&str, Option<District>, &str); 90] = [
    ("GE-AB", None, "Абхазия"),
    ("RU-AD", Some(Southern), "Республика Адыгея"),
    ("RU-AL", Some(Siberian), "Республика Алтай"),
    ("RU-ALT", Some(Siberian), "Алтайский край"),
    ("RU-AMU", Some(FarEastern), "Амурская область"),
    ("RU-ARK", Some(NorthWestern), "Архангельская область"),
    ("RU-AST", Some(Southern), "Астраханская область"),
    ("RU-BA", Some(Volga), "Республика Башкортостан"),
    ("RU-BEL", Some(Central), "Белгородская область"),
    ("RU-BRY", Some(Central), "Брянская область"),
    ("RU-BU", Some(FarEastern), "Республика Бурятия"),
    ("RU-CE", Some(NorthCaucasian), "Чеченская Республика"),
    ("RU-CHE", Some(Ural), "Челябинская область"),
    ("RU-CHU", Some(FarEastern), "Чукотский автономный округ"),
    ("RU-CU", Some(Volga), "Чувашская Республика - Чувашия"),
    ("RU-DA", Some(NorthCaucasian), "Республика Дагестан"),
    ("RU-IN", Some(NorthCaucasian), "Республика Ингушетия"),
    ("RU-IRK", Some(Siberian), "Иркутская область"),
    ("RU-IVA", Some(Central), "Ивановская область"),
    ("RU-KAM", Some(FarEastern), "Камчатский край"),
    ("RU-KB", Some(NorthCaucasian), "Кабардино-Балкарская Республика"),
    ("RU-KC", Some(NorthCaucasian), "Карачаево-Черкесская Республика"),
    ("RU-KDA", Some(Southern), "Краснодарский край"),
    ("RU-KEM", Some(Siberian), "Кемеровская область - Кузбасс"),
    ("RU-KGD", Some(NorthWestern), "Калининградская область"),
    ("RU-KGN", Some(Ural), "Курганская область"),
    ("RU-KHA", Some(FarEastern), "Хабаровский край"),
    ("RU-KHM", Some(Ural), "Ханты-Мансийский автономный округ - Югра"),
    ("RU-KIR", Some(Volga), "Кировская область"),
    ("RU-KK", Some(Siberian), "Республика Хакасия"),
    ("RU-KL", Some(Southern), "Республика Калмыкия"),
    ("RU-KLU", Some(Central), "Калужская область"),
    ("RU-KO", Some(NorthWestern), "Республика Коми"),
    ("RU-KOS", Some(Central), "Костромская область"),
    ("RU-KR", Some(NorthWestern), "Республика Карелия"),
    ("RU-KRS", Some(Central), "Курская область"),
    ("RU-KYA", Some(Siberian), "Красноярский край"),
    ("RU-LEN", Some(NorthWestern), "Ленинградская область"),
    ("RU-LIP", Some(Central), "Липецкая область"),
    ("RU-MAG", Some(FarEastern), "Магаданская область"),
    ("RU-ME", Some(Volga), "Республика Марий Эл"),
    ("RU-MO", Some(Volga), "Республика Мордовия"),
    ("RU-MOS", Some(Central), "Московская область"),
    ("RU-MOW", Some(Central), "г. Москва"),
    ("RU-MUR", Some(NorthWestern), "Мурманская область"),
    ("RU-NEN", Some(NorthWestern), "Ненецкий автономный округ"),
    ("RU-NGR", Some(NorthWestern), "Новгородская область"),
    ("RU-NIZ", Some(Volga), "Нижегородская область"),
    ("RU-NVS", Some(Siberian), "Новосибирская область"),
    ("RU-OMS", Some(Siberian), "Омская область"),
    ("RU-ORE", Some(Volga), "Оренбургская область"),
    ("RU-ORL", Some(Central), "Орловская область"),
    ("RU-PER", Some(Volga), "Пермский край"),
    ("RU-PNZ", Some(Volga), "Пензенская область"),
    ("RU-PRI", Some(FarEastern), "Приморский край"),
    ("RU-PSK", Some(NorthWestern), "Псковская область"),
    ("RU-ROS", Some(Southern), "Ростовская область"),
    ("RU-RYA", Some(Central), "Рязанская область"),
    ("RU-SA", Some(FarEastern), "Республика Саха (Якутия)"),
    ("RU-SAK", Some(FarEastern), "Сахалинская область"),
    ("RU-SAM", Some(Volga), "Самарская область"),
    ("RU-SAR", Some(Volga), "Саратовская область"),
    ("RU-SE", Some(NorthCaucasian), "Республика Северная Осетия - Алания"),
    ("RU-SMO", Some(Central), "Смоленская область"),
    ("RU-SPE", Some(NorthWestern), "г. Санкт-Петербург"),
    ("RU-STA", Some(NorthCaucasian), "Ставропольский край"),
    ("RU-SVE", Some(Ural), "Свердловская область"),
    ("RU-TA", Some(Volga), "Республика Татарстан"),
    ("RU-TAM", Some(Central), "Тамбовская область"),
    ("RU-TOM", Some(Siberian), "Томская область"),
    ("RU-TUL", Some(Central), "Тульская область"),
    ("RU-TVE", Some(Central), "Тверская область"),
    ("RU-TY", Some(Siberian), "Республика Тыва"),
    ("RU-TYU", Some(Ural), "Тюменская область"),
    ("RU-UD", Some(Volga), "Удмуртская Республика"),
    ("RU-ULY", Some(Volga), "Ульяновская область"),
    ("RU-VGG", Some(Southern), "Волгоградская область"),
    ("RU-VLA", Some(Central), "Владимирская область"),
    ("RU-VLG", Some(NorthWestern), "Вологодская область"),
    ("RU-VOR", Some(Central), "Воронежская область"),
    ("RU-YAN", Some(Ural), "Ямало-Ненецкий автономный округ"),
    ("RU-YAR", Some(Central), "Ярославская область"),
    ("RU-YEV", Some(FarEastern), "Еврейская автономная область"),
    ("RU-ZAB", Some(FarEastern), "Забайкальский край"),
    ("UA-09", None, "Луганская Народная Республика"),
    ("UA-14", None, "Донецкая Народная Республика"),
    ("UA-23", None, "Запорожская область"),
    ("UA-40", Some(Southern), "г. Севастополь"),
    ("UA-43", Some(Southern), "Республика Крым"),
    ("UA-65", None, "Херсонская область"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_regions_are_one_to_one() {
        let all: Vec<Region> = Region::all().collect();
        assert_eq!(all.iter().filter(|r| r.code().starts_with("RU-")).count(), 83);
        for pair in SUBJECTS.windows(2) {
            assert!(pair[0].0 < pair[1].0, "{} is not in order", pair[1].0);
        }
        for region in all {
            assert_eq!(Region::parse(region.code()), Some(region));
            assert_eq!(region.country().code(), &region.code()[..2]);
            assert_eq!(Region::read(region.code()), Some(region));
            let json = serde_json::to_string(&region).expect("a text");
            assert_eq!(serde_json::from_str::<Region>(&json).ok(), Some(region), "{json}");
            if region.code().len() > 2 {
                assert_eq!(Region::read(region.name()), Some(region), "{}", region.name());
            }
        }
        for wrong in ["", "RU-", "RU-XXX", "ru-sve", "RU-SVEE", "DE-BY", "ZZ", "Свердловская"] {
            assert_eq!(Region::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn districts() {
        for (code, want) in [
            ("RU-SVE", Some(District::Ural)),
            ("RU-NVS", Some(District::Siberian)),
            ("RU-BU", Some(District::FarEastern)),
            ("RU-KGD", Some(District::NorthWestern)),
            ("UA-43", Some(District::Southern)),
            ("UA-23", None),
            ("KZ", None),
        ] {
            assert_eq!(Region::parse(code).and_then(Region::district), want, "{code}");
        }
        let of = |district| Region::all().filter(|r| r.district() == Some(district)).count();
        let sizes = [Central, NorthWestern, Southern, NorthCaucasian, Volga, Ural, Siberian, FarEastern].map(of);
        assert_eq!(sizes, [18, 11, 8, 7, 14, 6, 10, 11]);
    }
}
