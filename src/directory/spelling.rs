//! How the registry of numbers spells places: `г. Сочи|Краснодарский край`, `г. Москва * Московская область`, `Республика
//! Удмуртская`. A name is compared by the words that are left without its type, so that every order and abbreviation of
//! "область", "республика" or "автономный округ" is one.

use smallvec::SmallVec;

use super::country::Country;
use super::region::Region;

/// A few regions.
pub type Regions = SmallVec<[Region; 2]>;

/// What a cell of the registry says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Spelled {
    /// The country; Russia wherever nothing else is said.
    pub country: Country,
    /// The regions, in the cell's order; none if it names the whole country.
    pub regions: Regions,
    /// The one settlement that it names, without "г.".
    pub city: Option<String>,
}

/// A place that no region is known for.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no region is known for \"{0}\"")]
pub struct UnknownPlace(pub String);

/// Longest cell that is read, in bytes.
const MAX_CELL: usize = 1_000;
/// Places in one cell at most.
const MAX_PLACES: usize = 16;
/// What of an unknown place is quoted, in characters.
const MAX_QUOTED: usize = 60;

/// Reads a cell of the registry. Levels stand apart by `|`, the most local first; places of one level by `*`, a comma or "и".
pub fn read(cell: &str) -> Result<Spelled, UnknownPlace> {
    let unknown = |place: &str| UnknownPlace(place.trim().chars().take(MAX_QUOTED).collect());
    if cell.len() > MAX_CELL {
        return Err(unknown(cell));
    }
    let levels: SmallVec<[SmallVec<[&str; 4]>; 4]> =
        cell.split('|').map(places).filter(|level| !level.is_empty()).take(MAX_PLACES).collect();
    // The subject is the last level that names one; without any, a place whose region we know ourselves.
    for known in [subject, locality] {
        for level in levels.iter().rev() {
            let found: SmallVec<[Option<Land>; 4]> = level.iter().map(|place| known(&key(place))).collect();
            if found.iter().all(Option::is_none) {
                continue;
            }
            let mut regions = Regions::new();
            let mut country = Country::RU;
            for (place, land) in level.iter().zip(found) {
                match land.or_else(|| locality(&key(place))).ok_or_else(|| unknown(place))? {
                    Land::Region(region) if regions.contains(&region) => {}
                    Land::Region(region) => regions.push(region),
                    Land::Country(of) => country = of,
                }
            }
            let city = match (levels.first().map(|l| l.as_slice()), regions.as_slice()) {
                (Some([place]), _) if settlement(place).is_some() => settlement(place),
                (Some([_]), [region]) if levels.len() == 1 => region.city().map(str::to_owned),
                _ => None,
            };
            return Ok(Spelled { country, regions, city });
        }
    }
    Err(unknown(cell))
}

#[derive(Clone, Copy)]
enum Land {
    Region(Region),
    Country(Country),
}

fn subject(key: &str) -> Option<Land> {
    if key == "российская федерация" || key == "россия" {
        return Some(Land::Country(Country::RU));
    }
    look(&SUBJECTS, key)
}

fn locality(key: &str) -> Option<Land> {
    subject(key).or_else(|| look(&LOCALITIES, key))
}

fn look(table: &[(&str, &str)], key: &str) -> Option<Land> {
    let at = table.binary_search_by(|row| row.0.cmp(key)).ok()?;
    let region = Region::parse(table[at].1)?;
    Some(if region == Region::from(region.country()) { Land::Country(region.country()) } else { Land::Region(region) })
}

/// The places of one level.
fn places(level: &str) -> SmallVec<[&str; 4]> {
    let parts = level.split(['*', ',', ';']).flat_map(|part| part.split(" и "));
    parts.map(str::trim).filter(|part| part.chars().any(char::is_alphanumeric)).take(MAX_PLACES).collect()
}

/// The name of a settlement, without its type: `г. Норильск`, `г.о. город Уфа`.
fn settlement(place: &str) -> Option<String> {
    const TYPES: [&str; 12] =
        ["г.о. город ", "г.о. г. ", "г. ", "г.", "город ", "пгт. ", "пгт ", "рп. ", "рп ", "п. ", "с. ", "ст-ца "];
    let place = place.trim();
    let name = TYPES.iter().find_map(|kind| place.strip_prefix(kind))?.trim();
    (name.chars().next().is_some_and(char::is_uppercase)).then(|| name.to_owned())
}

/// The words that tell one place from another: in small letters, without accents, without what kind of place it is, none twice.
fn key(place: &str) -> String {
    const KINDS: [&str; 17] = [
        "ао",
        "авт",
        "автономная",
        "автономный",
        "гор",
        "город",
        "край",
        "народная",
        "ны",
        "обл",
        "область",
        "округ",
        "район",
        "районы",
        "респ",
        "республика",
        "федеральная",
    ];
    let mut text = String::with_capacity(place.len());
    for c in place.chars().flat_map(char::to_lowercase) {
        match c {
            // An accent over the letter before.
            '\u{301}' => {}
            'ё' => text.push('е'),
            c if c.is_alphanumeric() => text.push(c),
            _ => text.push(' '),
        }
    }
    let mut words: SmallVec<[&str; 6]> = SmallVec::new();
    for word in text.split_whitespace() {
        // Single letters are "г.", "р-н", "а. о.".
        let tells = word.chars().nth(1).is_some() && !KINDS.contains(&word);
        if tells && !words.contains(&word) {
            words.push(word);
        }
    }
    words.join(" ")
}

/// Keys of subjects. By key.
#[rustfmt::skip]
static SUBJECTS: [(&str, &str); 117] = [
    ("абхазия", "GE-AB"), ("абхазская", "GE-AB"), ("адыгея", "RU-AD"), ("алания", "RU-SE"), ("алтай", "RU-AL"),
    ("алтайский", "RU-ALT"), ("амурская", "RU-AMU"), ("архангельская", "RU-ARK"), ("астраханская", "RU-AST"),
    ("башкирия", "RU-BA"), ("башкортостан", "RU-BA"), ("белгородская", "RU-BEL"), ("брянская", "RU-BRY"),
    ("бурятия", "RU-BU"), ("владимирская", "RU-VLA"), ("волгоградская", "RU-VGG"), ("вологодская", "RU-VLG"),
    ("воронежская", "RU-VOR"), ("дагестан", "RU-DA"), ("днр", "UA-14"), ("донецкая", "UA-14"), ("еврейская", "RU-YEV"),
    ("забайкальский", "RU-ZAB"), ("запорожская", "UA-23"), ("ивановская", "RU-IVA"), ("ингушетия", "RU-IN"),
    ("ингушская", "RU-IN"), ("иркутская", "RU-IRK"), ("кабардино балкария", "RU-KB"), ("кабардино балкарская", "RU-KB"),
    ("калининградская", "RU-KGD"), ("калмыкия", "RU-KL"), ("калужская", "RU-KLU"), ("камчатский", "RU-KAM"),
    ("карачаево черкесия", "RU-KC"), ("карачаево черкесская", "RU-KC"), ("карелия", "RU-KR"), ("кемеровская", "RU-KEM"),
    ("кемеровская кузбасс", "RU-KEM"), ("кировская", "RU-KIR"), ("коми", "RU-KO"), ("костромская", "RU-KOS"),
    ("краснодарский", "RU-KDA"), ("красноярский", "RU-KYA"), ("крым", "UA-43"), ("кузбасс", "RU-KEM"),
    ("курганская", "RU-KGN"), ("курская", "RU-KRS"), ("ленинградская", "RU-LEN"), ("липецкая", "RU-LIP"),
    ("лнр", "UA-09"), ("луганская", "UA-09"), ("магаданская", "RU-MAG"), ("марий эл", "RU-ME"), ("мордовия", "RU-MO"),
    ("москва", "RU-MOW"), ("московская", "RU-MOS"), ("мурманская", "RU-MUR"), ("ненецкий", "RU-NEN"),
    ("нижегородская", "RU-NIZ"), ("новгородская", "RU-NGR"), ("новосибирская", "RU-NVS"), ("омская", "RU-OMS"),
    ("оренбургская", "RU-ORE"), ("орловская", "RU-ORL"), ("пензенская", "RU-PNZ"), ("пермская", "RU-PER"),
    ("пермский", "RU-PER"), ("приморский", "RU-PRI"), ("псковская", "RU-PSK"), ("ростовская", "RU-ROS"),
    ("рязанская", "RU-RYA"), ("самарская", "RU-SAM"), ("санкт петербург", "RU-SPE"), ("саратовская", "RU-SAR"),
    ("саха", "RU-SA"), ("саха якутия", "RU-SA"), ("сахалинская", "RU-SAK"), ("свердловская", "RU-SVE"),
    ("севастополь", "UA-40"), ("северная осетия", "RU-SE"), ("северная осетия алания", "RU-SE"),
    ("смоленская", "RU-SMO"), ("ставропольский", "RU-STA"), ("тамбовская", "RU-TAM"), ("татарстан", "RU-TA"),
    ("тверская", "RU-TVE"), ("томская", "RU-TOM"), ("тува", "RU-TY"), ("тульская", "RU-TUL"), ("тыва", "RU-TY"),
    ("тюменская", "RU-TYU"), ("удмуртия", "RU-UD"), ("удмуртская", "RU-UD"), ("ульяновская", "RU-ULY"),
    ("хабаровский", "RU-KHA"), ("хакасия", "RU-KK"), ("ханты мансийский", "RU-KHM"),
    ("ханты мансийский югра", "RU-KHM"), ("херсонская", "UA-65"), ("хмао", "RU-KHM"), ("хмао югра", "RU-KHM"),
    ("челябинская", "RU-CHE"), ("чеченская", "RU-CE"), ("чечня", "RU-CE"), ("чечня чеченская", "RU-CE"),
    ("читинская", "RU-ZAB"), ("чувашия", "RU-CU"), ("чувашия чувашская", "RU-CU"), ("чувашская", "RU-CU"),
    ("чувашская чувашия", "RU-CU"), ("чукотский", "RU-CHU"), ("югра", "RU-KHM"), ("якутия", "RU-SA"),
    ("ямало ненецкий", "RU-YAN"), ("янао", "RU-YAN"), ("ярославская", "RU-YAR"),
];

/// Keys of places that the registry names without their subject, or may: parts of subjects that once were on their own, and
/// chief towns. By key.
#[rustfmt::skip]
static LOCALITIES: [(&str, &str); 108] = [
    ("абакан", "RU-KK"), ("абзелиловский", "RU-BA"), ("агинский", "RU-ZAB"), ("агинский бурятский", "RU-ZAB"),
    ("анадырь", "RU-CHU"), ("архангельск", "RU-ARK"), ("астрахань", "RU-AST"), ("байконур", "KZ"),
    ("барнаул", "RU-ALT"), ("белгород", "RU-BEL"), ("белорецкий", "RU-BA"), ("биробиджан", "RU-YEV"),
    ("брянск", "RU-BRY"), ("великий новгород", "RU-NGR"), ("владивосток", "RU-PRI"), ("владикавказ", "RU-SE"),
    ("владимир", "RU-VLA"), ("волгоград", "RU-VGG"), ("вологда", "RU-VLG"), ("воронеж", "RU-VOR"),
    ("горно алтайск", "RU-AL"), ("грозный", "RU-CE"), ("донецк", "UA-14"), ("екатеринбург", "RU-SVE"),
    ("иваново", "RU-IVA"), ("ижевск", "RU-UD"), ("иркутск", "RU-IRK"), ("йошкар ола", "RU-ME"), ("казань", "RU-TA"),
    ("калининград", "RU-KGD"), ("калуга", "RU-KLU"), ("кемерово", "RU-KEM"), ("киров", "RU-KIR"),
    ("коми пермяцкий", "RU-PER"), ("корякский", "RU-KAM"), ("кострома", "RU-KOS"), ("краснодар", "RU-KDA"),
    ("красноярск", "RU-KYA"), ("курган", "RU-KGN"), ("курск", "RU-KRS"), ("кызыл", "RU-TY"), ("липецк", "RU-LIP"),
    ("луганск", "UA-09"), ("магадан", "RU-MAG"), ("магас", "RU-IN"), ("магнитогорск", "RU-CHE"), ("майкоп", "RU-AD"),
    ("махачкала", "RU-DA"), ("мелитополь", "UA-23"), ("мурманск", "RU-MUR"), ("назрань", "RU-IN"), ("нальчик", "RU-KB"),
    ("нарьян мар", "RU-NEN"), ("нижневартовск", "RU-KHM"), ("нижний новгород", "RU-NIZ"), ("новокузнецк", "RU-KEM"),
    ("новороссийск", "RU-KDA"), ("новосибирск", "RU-NVS"), ("новый уренгой", "RU-YAN"), ("норильск", "RU-KYA"),
    ("омск", "RU-OMS"), ("орел", "RU-ORL"), ("оренбург", "RU-ORE"), ("пенза", "RU-PNZ"), ("пермь", "RU-PER"),
    ("петрозаводск", "RU-KR"), ("петропавловск камчатский", "RU-KAM"), ("псков", "RU-PSK"),
    ("ростов на дону", "RU-ROS"), ("рязань", "RU-RYA"), ("салехард", "RU-YAN"), ("самара", "RU-SAM"),
    ("саранск", "RU-MO"), ("саратов", "RU-SAR"), ("симферополь", "UA-43"), ("сириус", "RU-KDA"), ("смоленск", "RU-SMO"),
    ("сочи", "RU-KDA"), ("ставрополь", "RU-STA"), ("сургут", "RU-KHM"), ("сургутский", "RU-KHM"),
    ("сыктывкар", "RU-KO"), ("таймырский", "RU-KYA"), ("таймырский долгано ненецкий", "RU-KYA"), ("тамбов", "RU-TAM"),
    ("тверь", "RU-TVE"), ("тольятти", "RU-SAM"), ("томск", "RU-TOM"), ("тула", "RU-TUL"), ("тюмень", "RU-TYU"),
    ("улан удэ", "RU-BU"), ("ульяновск", "RU-ULY"), ("усть ордынский", "RU-IRK"),
    ("усть ордынский бурятский", "RU-IRK"), ("уфа", "RU-BA"), ("хабаровск", "RU-KHA"), ("ханты мансийск", "RU-KHM"),
    ("херсон", "UA-65"), ("чебоксары", "RU-CU"), ("челябинск", "RU-CHE"), ("череповец", "RU-VLG"),
    ("черкесск", "RU-KC"), ("чита", "RU-ZAB"), ("эвенкийский", "RU-KYA"), ("элиста", "RU-KL"),
    ("южно сахалинск", "RU-SAK"), ("якутск", "RU-SA"), ("ярославль", "RU-YAR"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_in_order_and_name_real_regions() {
        for table in [&SUBJECTS[..], &LOCALITIES[..]] {
            for pair in table.windows(2) {
                assert!(pair[0].0 < pair[1].0, "{} is not in order", pair[1].0);
            }
            for (name, code) in table {
                assert!(Region::parse(code).is_some(), "{code}");
                assert_eq!(key(name), *name);
            }
        }
        for region in Region::all().filter(|r| r.code().len() > 2) {
            assert!(SUBJECTS.iter().any(|(_, code)| *code == region.code()), "{region} has no spelling");
        }
    }

    #[test]
    fn the_registrys_spellings() {
        // Cell, regions, city.
        #[rustfmt::skip]
        let table = [
            ("Свердловская обл.", "RU-SVE", None),
            ("Свердловская обл", "RU-SVE", None),
            ("СВЕРДЛОВСКАЯ ОБЛАСТЬ", "RU-SVE", None),
            ("обл. Свердловская", "RU-SVE", None),
            ("г. Москва", "RU-MOW", Some("Москва")),
            ("г.Москва", "RU-MOW", Some("Москва")),
            ("Москва", "RU-MOW", Some("Москва")),
            ("г. Москва * Московская область", "RU-MOW RU-MOS", None),
            ("г. Москва и Московская область", "RU-MOW RU-MOS", None),
            ("Москва и Московская область", "RU-MOW RU-MOS", None),
            ("Московская область * Москва|Московская область * Москва", "RU-MOS RU-MOW", None),
            ("г. Санкт-Петербург * Ленинградская область", "RU-SPE RU-LEN", None),
            ("г. Сочи|Краснодарский край", "RU-KDA", Some("Сочи")),
            ("г. Псков|Псковская обл.", "RU-PSK", Some("Псков")),
            ("г. Улан-Удэ|г.о. город Улан-Удэ|Республика Бурятия", "RU-BU", Some("Улан-Удэ")),
            ("г.о. город Уфа|Республика Башкортостан", "RU-BA", Some("Уфа")),
            ("р-н Красногорский|Московская область", "RU-MOS", None),
            ("Республика Удмуртская", "RU-UD", None),
            ("Удмуртская Республика", "RU-UD", None),
            ("Чувашская Республика - Чувашия", "RU-CU", None),
            ("Чувашская Республика", "RU-CU", None),
            ("Республика Татарстан (Татарстан)", "RU-TA", None),
            ("Республика Саха /Якутия/", "RU-SA", None),
            ("Республика Северная Осетия - Алания", "RU-SE", None),
            ("Республика Кабардино-Балкарская", "RU-KB", None),
            ("Ханты - Мансийский - Югра АО", "RU-KHM", None),
            ("Ханты-Мансийский автономный округ - Югра", "RU-KHM", None),
            ("Ханты-Мансийский АО - Югра", "RU-KHM", None),
            ("Ямало-Ненецкий АО", "RU-YAN", None),
            ("Ненецкий АО", "RU-NEN", None),
            ("Архангельская область и Ненецкий автономный округ", "RU-ARK RU-NEN", None),
            ("Архангельская область, Ненецкий автономный округ", "RU-ARK RU-NEN", None),
            ("Еврейская автономная обл.", "RU-YEV", None),
            ("Чукотский АО", "RU-CHU", None),
            ("Кемеровская область - Кузбасс область", "RU-KEM", None),
            ("Корякский округ|Камчатский край", "RU-KAM", None),
            ("Республика Алтай", "RU-AL", None),
            ("Алтайский край", "RU-ALT", None),
            ("Луга\u{301}нская Наро\u{301}дная Респу\u{301}блика", "UA-09", None),
            ("Донецкая Народная Республика", "UA-14", None),
            ("Запорожская область", "UA-23", None),
            ("Республика Крым * г. Севастополь", "UA-43 UA-40", None),
            ("г. Севастополь", "UA-40", Some("Севастополь")),
            ("Сургутский район * г. Сургут", "RU-KHM", None),
            ("р-ны Абзелиловский и Белорецкий|Абзелиловский район * Белорецкий район", "RU-BA", None),
            ("Российская Федерация", "", None),
            ("\u{a0}Тверская\u{a0}обл. ", "RU-TVE", None),
        ];
        for (cell, regions, city) in table {
            let spelled = read(cell).unwrap_or_else(|e| panic!("{cell}: {e}"));
            let codes: Vec<&str> = spelled.regions.iter().map(|r| r.code()).collect();
            assert_eq!((codes.join(" ").as_str(), spelled.city.as_deref()), (regions, city), "{cell}");
            assert_eq!(spelled.country, Country::RU);
        }
        let baikonur = read("г. Байконур").expect("it is known");
        assert_eq!((baikonur.country, baikonur.city.as_deref()), (Country::KZ, Some("Байконур")));
    }

    #[test]
    fn unknown_places_are_named() {
        for (cell, place) in [
            ("", ""),
            ("|*| и ", "|*| и"),
            ("Атлантида", "Атлантида"),
            ("Тверская обл. * Атлантида", "Атлантида"),
            ("обл.", "обл."),
        ] {
            assert_eq!(read(cell), Err(UnknownPlace(place.to_owned())), "{cell}");
        }
        assert!(read(&"Тверская обл.|".repeat(1_000)).is_err());
    }
}
