//! Countries by ISO 3166-1, and which of them a number in E.164 form belongs to (ITU-T E.164 and its list of assigned codes,
//! with the longer prefixes where several countries share a code). Names are for people; nothing decides by them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::E164;

/// A country by ISO 3166-1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Country(pub(super) u8);

/// How people of a country dial.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dialling {
    /// What stands before a number of another country; the first is written, the others are understood.
    pub international: &'static [&'static str],
    /// What stands before a number of the own country; empty where nothing does.
    pub national: &'static str,
    /// Digits of a national number at most.
    pub longest: usize,
}

impl Country {
    /// Russia.
    pub const RU: Country = Country::of_code("RU");
    /// Kazakhstan, which shares zone 7.
    pub const KZ: Country = Country::of_code("KZ");
    /// Ukraine.
    pub const UA: Country = Country::of_code("UA");
    /// Georgia; by ISO 3166-2 its Abkhazia has codes in zone 7 as well.
    pub const GE: Country = Country::of_code("GE");

    /// How many there are.
    pub(super) const COUNT: usize = TABLE.len();

    /// From the two capital letters.
    pub fn parse(code: &str) -> Option<Country> {
        let at = TABLE.binary_search_by(|row| row.0.cmp(code)).ok()?;
        u8::try_from(at).ok().map(Country)
    }

    /// All of them, by code.
    pub fn all() -> impl Iterator<Item = Country> {
        (0..=u8::MAX).take(TABLE.len()).map(Country)
    }

    /// Two capital letters, e.g. `RU`.
    pub fn code(self) -> &'static str {
        TABLE[usize::from(self.0)].0
    }

    /// English name.
    pub fn name(self) -> &'static str {
        TABLE[usize::from(self.0)].3
    }

    /// The E.164 country code, e.g. `7` or `375`; several countries may share one, and a few islands have none.
    pub fn calling_code(self) -> &'static str {
        TABLE[usize::from(self.0)].1
    }

    /// How its people dial.
    pub fn dialling(self) -> Dialling {
        let international: &[&str] = match (self.calling_code(), self.code()) {
            ("7", _) => &["810", "00"],
            ("1", _) => &["011", "00"],
            (_, "BY" | "TM" | "TJ") => &["810", "00"],
            (_, "UZ") => &["00", "810"],
            (_, "AU") => &["0011", "00"],
            (_, "JP") => &["010", "00"],
            (_, "KR") => &["001", "002", "00"],
            (_, "HK" | "SG" | "TH" | "ID" | "KH") => &["001", "00"],
            (_, "TW") => &["002", "00"],
            (_, "KE" | "TZ" | "UG") => &["000", "00"],
            (_, "NG") => &["009", "00"],
            (_, "CU") => &["119", "00"],
            _ => &["00"],
        };
        let (national, longest) = match (self.calling_code(), self.code()) {
            ("7", _) => ("8", 10),
            ("1", _) => ("1", 10),
            (_, "BY") => ("80", 9),
            (_, "TM") => ("8", 8),
            (_, "HU") => ("06", 9),
            (_, "AD") => ("", 6),
            (_, "IS") => ("", 7),
            (
                _,
                "BH" | "CY" | "DK" | "EE" | "GI" | "HK" | "KW" | "LV" | "MC" | "MT" | "NO" | "OM" | "QA" | "SG" | "TN",
            ) => ("", 8),
            (_, "CZ" | "ES" | "PL" | "PT" | "TJ" | "UZ") => ("", 9),
            (_, "GR" | "MX" | "SM" | "VA") => ("", 10),
            (_, "IT" | "LU") => ("", 11),
            _ => ("0", 13),
        };
        Dialling { international, national, longest }
    }

    /// The country that a number belongs to; none for satellites, international freephone and codes that nobody has.
    pub fn of(number: E164) -> Option<Country> {
        let value = number.value();
        let digits = value.ilog10() + 1;
        // A number has seven digits at least.
        let six = (value / 10u64.pow(digits.saturating_sub(6))) as u32;
        let finer = FINER.iter().find(|(prefix, width, _)| six / 10u32.pow(6 - width) == *prefix);
        let at = match finer {
            Some((_, _, code)) => return Country::parse(code),
            None => FIRST_FOUR[(six / 100) as usize % FIRST_FOUR.len()],
        };
        (at != NOBODY).then_some(Country(at))
    }

    const fn of_code(code: &str) -> Country {
        let mut i = 0;
        while i < TABLE.len() {
            let (a, b) = (TABLE[i].0.as_bytes(), code.as_bytes());
            if a[0] == b[0] && a[1] == b[1] {
                return Country(i as u8);
            }
            i += 1;
        }
        panic!("no such country")
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl fmt::Debug for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl Serialize for Country {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.code())
    }
}

impl<'de> Deserialize<'de> for Country {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Country, D::Error> {
        let code = std::borrow::Cow::<str>::deserialize(d)?;
        Country::parse(&code).ok_or_else(|| serde::de::Error::custom("not a country by ISO 3166-1"))
    }
}

const NOBODY: u8 = u8::MAX;

/// Prefixes longer than four digits: prefix, its width, country.
const FINER: [(u32, u32, &str); 9] = [
    (441481, 6, "GG"),
    (447781, 6, "GG"),
    (441534, 6, "JE"),
    (447797, 6, "JE"),
    (441624, 6, "IM"),
    (447624, 6, "IM"),
    (262269, 6, "YT"),
    (262639, 6, "YT"),
    (35818, 5, "AX"),
];

/// The country of each first four digits.
static FIRST_FOUR: [u8; 10_000] = {
    let mut table = [NOBODY; 10_000];
    // Shorter prefixes first, so that the longer ones within them stand.
    let mut width = 1;
    while width <= 4 {
        let mut row = 0;
        while row < TABLE.len() {
            fill(&mut table, TABLE[row].2.as_bytes(), width, row as u8);
            row += 1;
        }
        width += 1;
    }
    table
};

/// Enters those prefixes of a list that have this width.
const fn fill(table: &mut [u8; 10_000], list: &[u8], width: usize, country: u8) {
    let mut at = 0;
    while at < list.len() {
        let (mut value, mut n) = (0, 0);
        while at < list.len() && list[at] != b' ' {
            value = value * 10 + (list[at] - b'0') as usize;
            n += 1;
            at += 1;
        }
        at += 1;
        if n == width {
            let span = 10usize.pow(4 - n as u32);
            let mut i = 0;
            while i < span {
                table[value * span + i] = country;
                i += 1;
            }
        }
    }
}

/// Code by ISO 3166-1 (XK is nobody's there, but the codes' users agree on it), E.164 country code, the prefixes of its numbers
/// up to four digits (longer ones are in [`FINER`]), name. By code.
#[rustfmt::skip]
static TABLE: [(&str, &str, &str, &str); 250] = [
    ("AD", "376", "376", "Andorra"),
    ("AE", "971", "971", "United Arab Emirates"),
    ("AF", "93", "93", "Afghanistan"),
    ("AG", "1", "1268", "Antigua and Barbuda"),
    ("AI", "1", "1264", "Anguilla"),
    ("AL", "355", "355", "Albania"),
    ("AM", "374", "374", "Armenia"),
    ("AO", "244", "244", "Angola"),
    ("AQ", "672", "6721", "Antarctica"),
    ("AR", "54", "54", "Argentina"),
    ("AS", "1", "1684", "American Samoa"),
    ("AT", "43", "43", "Austria"),
    ("AU", "61", "61", "Australia"),
    ("AW", "297", "297", "Aruba"),
    ("AX", "358", "", "Åland Islands"),
    ("AZ", "994", "994", "Azerbaijan"),
    ("BA", "387", "387", "Bosnia and Herzegovina"),
    ("BB", "1", "1246", "Barbados"),
    ("BD", "880", "880", "Bangladesh"),
    ("BE", "32", "32", "Belgium"),
    ("BF", "226", "226", "Burkina Faso"),
    ("BG", "359", "359", "Bulgaria"),
    ("BH", "973", "973", "Bahrain"),
    ("BI", "257", "257", "Burundi"),
    ("BJ", "229", "229", "Benin"),
    ("BL", "590", "", "Saint Barthélemy"),
    ("BM", "1", "1441", "Bermuda"),
    ("BN", "673", "673", "Brunei"),
    ("BO", "591", "591", "Bolivia"),
    ("BQ", "599", "5993 5994 5997", "Bonaire, Sint Eustatius and Saba"),
    ("BR", "55", "55", "Brazil"),
    ("BS", "1", "1242", "Bahamas"),
    ("BT", "975", "975", "Bhutan"),
    ("BV", "", "", "Bouvet Island"),
    ("BW", "267", "267", "Botswana"),
    ("BY", "375", "375", "Belarus"),
    ("BZ", "501", "501", "Belize"),
    ("CA", "1", "1204 1226 1236 1249 1250 1257 1263 1289 1306 1343 1354 1365 1367 1368 1382 1403 1416 1418 1428 1431 1437 1438 1450 1460 1468 1474 1506 1514 1519 1548 1579 1581 1584 1587 1600 1604 1613 1622 1633 1639 1644 1647 1655 1672 1677 1683 1688 1705 1709 1742 1753 1778 1780 1782 1807 1819 1825 1867 1873 1879 1902 1905 1942", "Canada"),
    ("CC", "61", "", "Cocos (Keeling) Islands"),
    ("CD", "243", "243", "Congo (Democratic Republic)"),
    ("CF", "236", "236", "Central African Republic"),
    ("CG", "242", "242", "Congo"),
    ("CH", "41", "41", "Switzerland"),
    ("CI", "225", "225", "Côte d'Ivoire"),
    ("CK", "682", "682", "Cook Islands"),
    ("CL", "56", "56", "Chile"),
    ("CM", "237", "237", "Cameroon"),
    ("CN", "86", "86", "China"),
    ("CO", "57", "57", "Colombia"),
    ("CR", "506", "506", "Costa Rica"),
    ("CU", "53", "53", "Cuba"),
    ("CV", "238", "238", "Cabo Verde"),
    ("CW", "599", "5999", "Curaçao"),
    ("CX", "61", "", "Christmas Island"),
    ("CY", "357", "357", "Cyprus"),
    ("CZ", "420", "420", "Czechia"),
    ("DE", "49", "49", "Germany"),
    ("DJ", "253", "253", "Djibouti"),
    ("DK", "45", "45", "Denmark"),
    ("DM", "1", "1767", "Dominica"),
    ("DO", "1", "1809 1829 1849", "Dominican Republic"),
    ("DZ", "213", "213", "Algeria"),
    ("EC", "593", "593", "Ecuador"),
    ("EE", "372", "372", "Estonia"),
    ("EG", "20", "20", "Egypt"),
    ("EH", "212", "", "Western Sahara"),
    ("ER", "291", "291", "Eritrea"),
    ("ES", "34", "34", "Spain"),
    ("ET", "251", "251", "Ethiopia"),
    ("FI", "358", "358", "Finland"),
    ("FJ", "679", "679", "Fiji"),
    ("FK", "500", "500", "Falkland Islands"),
    ("FM", "691", "691", "Micronesia"),
    ("FO", "298", "298", "Faroe Islands"),
    ("FR", "33", "33", "France"),
    ("GA", "241", "241", "Gabon"),
    ("GB", "44", "44", "United Kingdom"),
    ("GD", "1", "1473", "Grenada"),
    ("GE", "995", "995 7840 7940", "Georgia"),
    ("GF", "594", "594", "French Guiana"),
    ("GG", "44", "", "Guernsey"),
    ("GH", "233", "233", "Ghana"),
    ("GI", "350", "350", "Gibraltar"),
    ("GL", "299", "299", "Greenland"),
    ("GM", "220", "220", "Gambia"),
    ("GN", "224", "224", "Guinea"),
    ("GP", "590", "590", "Guadeloupe"),
    ("GQ", "240", "240", "Equatorial Guinea"),
    ("GR", "30", "30", "Greece"),
    ("GS", "", "", "South Georgia and the South Sandwich Islands"),
    ("GT", "502", "502", "Guatemala"),
    ("GU", "1", "1671", "Guam"),
    ("GW", "245", "245", "Guinea-Bissau"),
    ("GY", "592", "592", "Guyana"),
    ("HK", "852", "852", "Hong Kong"),
    ("HM", "", "", "Heard Island and McDonald Islands"),
    ("HN", "504", "504", "Honduras"),
    ("HR", "385", "385", "Croatia"),
    ("HT", "509", "509", "Haiti"),
    ("HU", "36", "36", "Hungary"),
    ("ID", "62", "62", "Indonesia"),
    ("IE", "353", "353", "Ireland"),
    ("IL", "972", "972", "Israel"),
    ("IM", "44", "", "Isle of Man"),
    ("IN", "91", "91", "India"),
    ("IO", "246", "246", "British Indian Ocean Territory"),
    ("IQ", "964", "964", "Iraq"),
    ("IR", "98", "98", "Iran"),
    ("IS", "354", "354", "Iceland"),
    ("IT", "39", "39", "Italy"),
    ("JE", "44", "", "Jersey"),
    ("JM", "1", "1658 1876", "Jamaica"),
    ("JO", "962", "962", "Jordan"),
    ("JP", "81", "81", "Japan"),
    ("KE", "254", "254", "Kenya"),
    ("KG", "996", "996", "Kyrgyzstan"),
    ("KH", "855", "855", "Cambodia"),
    ("KI", "686", "686", "Kiribati"),
    ("KM", "269", "269", "Comoros"),
    ("KN", "1", "1869", "Saint Kitts and Nevis"),
    ("KP", "850", "850", "Korea (North)"),
    ("KR", "82", "82", "Korea (South)"),
    ("KW", "965", "965", "Kuwait"),
    ("KY", "1", "1345", "Cayman Islands"),
    ("KZ", "7", "76 77 997", "Kazakhstan"),
    ("LA", "856", "856", "Laos"),
    ("LB", "961", "961", "Lebanon"),
    ("LC", "1", "1758", "Saint Lucia"),
    ("LI", "423", "423", "Liechtenstein"),
    ("LK", "94", "94", "Sri Lanka"),
    ("LR", "231", "231", "Liberia"),
    ("LS", "266", "266", "Lesotho"),
    ("LT", "370", "370", "Lithuania"),
    ("LU", "352", "352", "Luxembourg"),
    ("LV", "371", "371", "Latvia"),
    ("LY", "218", "218", "Libya"),
    ("MA", "212", "212", "Morocco"),
    ("MC", "377", "377", "Monaco"),
    ("MD", "373", "373", "Moldova"),
    ("ME", "382", "382", "Montenegro"),
    ("MF", "590", "", "Saint Martin (French part)"),
    ("MG", "261", "261", "Madagascar"),
    ("MH", "692", "692", "Marshall Islands"),
    ("MK", "389", "389", "North Macedonia"),
    ("ML", "223", "223", "Mali"),
    ("MM", "95", "95", "Myanmar"),
    ("MN", "976", "976", "Mongolia"),
    ("MO", "853", "853", "Macao"),
    ("MP", "1", "1670", "Northern Mariana Islands"),
    ("MQ", "596", "596", "Martinique"),
    ("MR", "222", "222", "Mauritania"),
    ("MS", "1", "1664", "Montserrat"),
    ("MT", "356", "356", "Malta"),
    ("MU", "230", "230", "Mauritius"),
    ("MV", "960", "960", "Maldives"),
    ("MW", "265", "265", "Malawi"),
    ("MX", "52", "52", "Mexico"),
    ("MY", "60", "60", "Malaysia"),
    ("MZ", "258", "258", "Mozambique"),
    ("NA", "264", "264", "Namibia"),
    ("NC", "687", "687", "New Caledonia"),
    ("NE", "227", "227", "Niger"),
    ("NF", "672", "6723", "Norfolk Island"),
    ("NG", "234", "234", "Nigeria"),
    ("NI", "505", "505", "Nicaragua"),
    ("NL", "31", "31", "Netherlands"),
    ("NO", "47", "47", "Norway"),
    ("NP", "977", "977", "Nepal"),
    ("NR", "674", "674", "Nauru"),
    ("NU", "683", "683", "Niue"),
    ("NZ", "64", "64", "New Zealand"),
    ("OM", "968", "968", "Oman"),
    ("PA", "507", "507", "Panama"),
    ("PE", "51", "51", "Peru"),
    ("PF", "689", "689", "French Polynesia"),
    ("PG", "675", "675", "Papua New Guinea"),
    ("PH", "63", "63", "Philippines"),
    ("PK", "92", "92", "Pakistan"),
    ("PL", "48", "48", "Poland"),
    ("PM", "508", "508", "Saint Pierre and Miquelon"),
    ("PN", "64", "", "Pitcairn"),
    ("PR", "1", "1787 1939", "Puerto Rico"),
    ("PS", "970", "970", "Palestine"),
    ("PT", "351", "351", "Portugal"),
    ("PW", "680", "680", "Palau"),
    ("PY", "595", "595", "Paraguay"),
    ("QA", "974", "974", "Qatar"),
    ("RE", "262", "262", "Réunion"),
    ("RO", "40", "40", "Romania"),
    ("RS", "381", "381", "Serbia"),
    ("RU", "7", "7", "Russia"),
    ("RW", "250", "250", "Rwanda"),
    ("SA", "966", "966", "Saudi Arabia"),
    ("SB", "677", "677", "Solomon Islands"),
    ("SC", "248", "248", "Seychelles"),
    ("SD", "249", "249", "Sudan"),
    ("SE", "46", "46", "Sweden"),
    ("SG", "65", "65", "Singapore"),
    ("SH", "290", "290 247", "Saint Helena, Ascension and Tristan da Cunha"),
    ("SI", "386", "386", "Slovenia"),
    ("SJ", "47", "4779", "Svalbard and Jan Mayen"),
    ("SK", "421", "421", "Slovakia"),
    ("SL", "232", "232", "Sierra Leone"),
    ("SM", "378", "378", "San Marino"),
    ("SN", "221", "221", "Senegal"),
    ("SO", "252", "252", "Somalia"),
    ("SR", "597", "597", "Suriname"),
    ("SS", "211", "211", "South Sudan"),
    ("ST", "239", "239", "São Tomé and Príncipe"),
    ("SV", "503", "503", "El Salvador"),
    ("SX", "1", "1721", "Sint Maarten"),
    ("SY", "963", "963", "Syria"),
    ("SZ", "268", "268", "Eswatini"),
    ("TC", "1", "1649", "Turks and Caicos Islands"),
    ("TD", "235", "235", "Chad"),
    ("TF", "", "", "French Southern Territories"),
    ("TG", "228", "228", "Togo"),
    ("TH", "66", "66", "Thailand"),
    ("TJ", "992", "992", "Tajikistan"),
    ("TK", "690", "690", "Tokelau"),
    ("TL", "670", "670", "Timor-Leste"),
    ("TM", "993", "993", "Turkmenistan"),
    ("TN", "216", "216", "Tunisia"),
    ("TO", "676", "676", "Tonga"),
    ("TR", "90", "90", "Türkiye"),
    ("TT", "1", "1868", "Trinidad and Tobago"),
    ("TV", "688", "688", "Tuvalu"),
    ("TW", "886", "886", "Taiwan"),
    ("TZ", "255", "255", "Tanzania"),
    ("UA", "380", "380", "Ukraine"),
    ("UG", "256", "256", "Uganda"),
    ("UM", "", "", "United States Minor Outlying Islands"),
    ("US", "1", "1", "United States"),
    ("UY", "598", "598", "Uruguay"),
    ("UZ", "998", "998", "Uzbekistan"),
    ("VA", "379", "379", "Vatican City"),
    ("VC", "1", "1784", "Saint Vincent and the Grenadines"),
    ("VE", "58", "58", "Venezuela"),
    ("VG", "1", "1284", "Virgin Islands (British)"),
    ("VI", "1", "1340", "Virgin Islands (U.S.)"),
    ("VN", "84", "84", "Viet Nam"),
    ("VU", "678", "678", "Vanuatu"),
    ("WF", "681", "681", "Wallis and Futuna"),
    ("WS", "685", "685", "Samoa"),
    ("XK", "383", "383", "Kosovo"),
    ("YE", "967", "967", "Yemen"),
    ("YT", "262", "", "Mayotte"),
    ("ZA", "27", "27", "South Africa"),
    ("ZM", "260", "260", "Zambia"),
    ("ZW", "263", "263", "Zimbabwe"),
];
