//! The numbering plan: which country, regions and city a number belongs to. Immutable, asked for every call, without allocation.

use super::country::Country;
use super::number::E164;
use super::region::Region;

/// The plan.
#[derive(Clone, Default, Debug)]
pub struct Numbering {}

/// Where a number belongs, as far as the plan says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place<'a> {
    /// Country; none for satellites, international freephone and codes that nobody has.
    pub country: Option<Country>,
    /// Regions: one, more where the plan gives a range to several, or none for numbers of a whole country that is divided into
    /// regions. A foreign number has its country.
    pub regions: &'a [Region],
    /// The settlement, by its local name.
    pub city: Option<&'a str>,
}

impl Numbering {
    /// Where a number belongs.
    pub fn place(&self, number: E164) -> Place<'_> {
        let country = Country::of(number);
        let regions = match country {
            None | Some(Country::RU) => &[],
            Some(country) => Region::countries(country),
        };
        Place { country, regions, city: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn countries() {
        let plan = Numbering::default();
        for (number, country) in [
            ("+73433000001", "RU"),
            ("+77272500000", "KZ"),
            ("+76001234567", "KZ"),
            ("+78402261234", "GE"),
            ("+79407112233", "GE"),
            ("+995322123456", "GE"),
            ("+375172123456", "BY"),
            ("+442071234567", "GB"),
            ("+441534123456", "JE"),
            ("+12125551234", "US"),
            ("+14165551234", "CA"),
            ("+12425551234", "BS"),
            ("+35818123456", "AX"),
            ("+358912345678", "FI"),
            ("+4779123456", "SJ"),
            ("+3834123456", "XK"),
            ("+80012345678", ""),
            ("+881612345678", ""),
            ("+2101234567", ""),
        ] {
            let place = plan.place(number.parse().expect("a number"));
            assert_eq!(place.country.map_or("", Country::code), country, "{number}");
            if country != "RU" {
                assert_eq!(place.regions.first().map_or("", |r| r.code()), country, "{number}");
            }
        }
    }
}
