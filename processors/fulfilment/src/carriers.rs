//! Carriers: what parcels cost to send, how long they take, their tracking numbers and labels.
//!
//! Three built-in carriers, each a constant table. Carriers, limits, prices and days are invented; the
//! schemes of their numbers and the language of their labels are real. Pure: the same parcels and
//! serials give the same quotes, numbers and labels, so a replay repeats them.

use Zone::{Eu, Home, World};
use jiff::{SignedDuration, Timestamp, civil::Date, tz::Offset};
use waybill_events::Service::{self, Express, Standard};

/// The shop's country (ISO 3166-1 alpha-2): parcels to it are domestic.
const HOME: &str = "DE";
/// The other members of the European Union, as of 2020 (ISO 3166-1 alpha-2).
const EU: &str = "AT BE BG CY CZ DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Zone {
    Home,
    Eu,
    World,
}

/// Zone, service, business days, and the price of a parcel per weight bracket in minor units of EUR.
type Rate = (Zone, Service, u32, [i64; 5]);

/// A carrier: what it takes, what it asks, and how it numbers parcels.
#[derive(Debug, PartialEq, Eq)]
pub struct Carrier {
    /// Its name, no other carrier's.
    pub name: &'static str,
    /// The heaviest parcel of each weight bracket, in grams; of the last, the heaviest it takes.
    pub brackets_g: [u32; 5],
    /// The longest side it takes, in millimetres.
    pub max_side_mm: u32,
    /// The most that the longest side and the girth around it come to, in millimetres.
    pub max_side_and_girth_mm: u64,
    scheme: Scheme,
    rates: &'static [Rate],
}

/// The carriers. The last serves every zone and takes all but the very large: up to a tonne a parcel.
pub static CARRIERS: [Carrier; 3] = [
    Carrier {
        name: "parcelpost",
        brackets_g: [2_000, 5_000, 10_000, 20_000, 31_500],
        max_side_mm: 1_200,
        max_side_and_girth_mm: 3_000,
        scheme: Scheme::S10,
        rates: &[
            (Home, Standard, 2, [520, 690, 980, 1_650, 2_190]),
            (Eu, Standard, 5, [1_390, 1_690, 2_190, 3_290, 4_490]),
            (World, Standard, 12, [1_890, 2_990, 4_790, 7_990, 11_490]),
        ],
    },
    Carrier {
        name: "swiftline",
        brackets_g: [2_000, 5_000, 10_000, 20_000, 40_000],
        max_side_mm: 1_750,
        max_side_and_girth_mm: 3_300,
        scheme: Scheme::Luhn,
        rates: &[
            (Home, Standard, 2, [560, 690, 940, 1_590, 2_690]),
            (Home, Express, 1, [990, 1_290, 1_690, 2_390, 3_990]),
            (Eu, Standard, 4, [1_390, 1_650, 2_250, 3_190, 4_990]),
            (Eu, Express, 2, [2_490, 3_290, 4_490, 6_990, 10_900]),
            (World, Express, 4, [4_990, 7_490, 11_900, 19_900, 34_900]),
        ],
    },
    Carrier {
        name: "freightways",
        brackets_g: [50_000, 100_000, 250_000, 500_000, 1_000_000],
        max_side_mm: 6_000,
        max_side_and_girth_mm: 16_000,
        scheme: Scheme::Sscc,
        rates: &[
            (Home, Standard, 3, [4_900, 6_900, 10_900, 16_900, 24_900]),
            (Home, Express, 2, [7_900, 10_900, 16_900, 25_900, 38_900]),
            (Eu, Standard, 6, [8_900, 12_900, 21_900, 34_900, 54_900]),
            (Eu, Express, 3, [14_900, 21_900, 36_900, 58_900, 91_900]),
            (World, Standard, 25, [29_000, 39_000, 64_000, 99_000, 159_000]),
            (World, Express, 7, [59_000, 84_000, 149_000, 239_000, 389_000]),
        ],
    },
];

/// A parcel to send: its weight in grams and its outer sides in millimetres.
pub type Load = (u32, [u32; 3]);

/// What a carrier asks for all parcels of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Who would carry them.
    pub carrier: &'static Carrier,
    /// The price of all of them, in minor units of EUR.
    pub cost_minor: i64,
    /// Business days from hand-over to delivery.
    pub business_days: u32,
}

/// The cheapest carrier that takes all parcels; of equals the faster, then the first by name. None if a
/// parcel is beyond what any carrier takes, or if there is none to send. A country (ISO 3166-1 alpha-2,
/// in either case) that is neither the shop's nor in the European Union is charged as the world.
pub fn cheapest(parcels: &[Load], country: &str, service: Service) -> Option<Quote> {
    let zone = zone_of(country);
    let quotes = CARRIERS.iter();
    let quotes = quotes.filter_map(|carrier| carrier.quote(parcels, zone, service));
    quotes.min_by_key(|quote| (quote.cost_minor, quote.business_days, quote.carrier.name))
}

fn zone_of(country: &str) -> Zone {
    let is_it = |code: &str| code.eq_ignore_ascii_case(country);
    match country {
        _ if is_it(HOME) => Home,
        _ if EU.split(' ').any(is_it) => Eu,
        _ => World,
    }
}

impl Carrier {
    fn quote(&'static self, parcels: &[Load], zone: Zone, service: Service) -> Option<Quote> {
        let rate = self.rates.iter().find(|r| (r.0, r.1) == (zone, service))?;
        let mut cost_minor = 0;
        for &(weight_g, outer_mm) in parcels {
            let side = outer_mm.into_iter().max()?;
            let sum: u64 = outer_mm.into_iter().map(u64::from).sum();
            // Twice all sides less the longest is the longest and the girth.
            if side > self.max_side_mm || 2 * sum - u64::from(side) > self.max_side_and_girth_mm {
                return None;
            }
            cost_minor += rate.3[self.brackets_g.iter().position(|&most| weight_g <= most)?];
        }
        (!parcels.is_empty()).then_some(Quote { carrier: self, cost_minor, business_days: rate.2 })
    }

    /// How many tracking numbers the carrier has: serials from 0 up to here give distinct ones; from here
    /// on they wrap around. The schemes forbid using a number again within 12 months.
    pub fn serials(&self) -> u64 {
        match self.scheme {
            Scheme::S10 => SERVICE_LETTERS.len() as u64 * S10_NUMBERS,
            Scheme::Luhn | Scheme::Sscc => 10_000_000_000,
        }
    }

    /// The tracking number of a serial.
    pub fn tracking_number(&self, serial: u64) -> String {
        let serial = serial % self.serials();
        match self.scheme {
            Scheme::S10 => {
                let letter = char::from(SERVICE_LETTERS[(serial / S10_NUMBERS) as usize]);
                let number = format!("{:08}", serial % S10_NUMBERS);
                format!("C{letter}{}{HOME}", with_s10_digit(&number))
            }
            Scheme::Luhn => with_mod_10_digit(&format!("7{serial:010}"), DOUBLED),
            Scheme::Sscc => {
                let (extension, reference) = (serial / 1_000_000_000, serial % 1_000_000_000);
                let number = format!("{extension}{GS1_COMPANY}{reference:09}");
                with_mod_10_digit(&number, TRIPLED)
            }
        }
    }

    /// A 4 by 6 inch label at 203 dpi in ZPL II (Zebra's programming guide): the tracking number as Code
    /// 128 (`^BC`), an SSCC as GS1-128 after application identifier 00; order, parcel of how many, weight
    /// and country; never a name or an address. Nothing in these texts can begin a command.
    pub fn label(
        &self,
        tracking_number: &str,
        order_id: &str,
        parcel: u32,
        of: u32,
        weight_g: u32,
        country: &str,
    ) -> String {
        let gs1 = if self.scheme == Scheme::Sscc { ">;>800" } else { "" };
        // In Code 128 fields > begins an instruction and >0 stands for itself.
        let (number, order) = (field(&tracking_number.replace('>', ">0")), field(order_id));
        let (kg, g, country) = (weight_g / 1_000, weight_g % 1_000, field(country));
        format!(
            "^XA^CI28^PW812^LL1218\n\
             ^FO40,40^A0N,60,60^FD{}^FS\n\
             ^FO40,140^BY3^BCN,220,Y,N,N^FH_^FD{gs1}{number}^FS\n\
             ^FO40,460^A0N,36,36^FH_^FDOrder {order}^FS\n\
             ^FO40,520^A0N,36,36^FDParcel {parcel}/{of}^FS\n\
             ^FO40,580^A0N,36,36^FDWeight {kg}.{g:03} kg^FS\n\
             ^FO40,640^A0N,60,60^FH_^FD{country}^FS\n\
             ^XZ\n",
            self.name
        )
    }
}

/// Field data for ZPL after `^FH_`: `_` and two hexadecimal digits for any byte that commands are made of.
fn field(text: &str) -> String {
    let coded = |byte: u8| match byte {
        b' '..=b'}' if !b"^_".contains(&byte) => char::from(byte).to_string(),
        _ => format!("_{byte:02X}"),
    };
    text.bytes().map(coded).collect()
}

#[derive(Debug, PartialEq, Eq)]
enum Scheme {
    /// UPU standard S10, 13 characters: service indicator, number of 8 digits and check digit, country.
    S10,
    /// The express carrier's own, 12 digits: 7, serial of 10 digits, check digit by Luhn's formula (ISO/IEC
    /// 7812-1, annex B). Shorter than a card number, lest a filter take it for one.
    Luhn,
    /// The serial shipping container code (SSCC) of the GS1 General Specifications, 18 digits: extension
    /// digit, company prefix, serial reference, check digit.
    Sscc,
}

/// S10 service indicators CA to CU are parcel post; CV is for insured parcels, CZ needs an agreement.
const SERVICE_LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTU";
const S10_NUMBERS: u64 = 100_000_000;
/// GS1 keeps prefixes from 952 for examples: no company ships under this one.
const GS1_COMPANY: &str = "9520000";

/// Whether a tracking number, of any carrier that uses one of the three schemes, has its form and check
/// digit. One wrong digit is always found, but for S10: that has the check digit 5 for two remainders, so
/// it misses a wrong digit of the number that turns one into the other.
pub fn is_valid_tracking_number(s: &str) -> bool {
    let shape = s.replace(|c: char| c.is_ascii_digit(), "9");
    match shape.replace(|c: char| c.is_ascii_uppercase(), "A").as_str() {
        "AA999999999AA" => s[2..11] == with_s10_digit(&s[2..10]),
        "999999999999" => s.starts_with('7') && s == with_mod_10_digit(&s[..11], DOUBLED),
        "999999999999999999" => s == with_mod_10_digit(&s[..17], TRIPLED),
        _ => false,
    }
}

/// UPU S10: by the remainder by 11 of the weighted sum, 11 less it, but 0 for 10 and 5 for 11.
fn with_s10_digit(number: &str) -> String {
    let digits = number.bytes().map(|byte| usize::from(byte - b'0'));
    let weights = [8, 6, 4, 2, 3, 5, 9, 7];
    let sum: usize = digits.zip(weights).map(|(digit, weight)| digit * weight).sum();
    format!("{number}{}", [5, 0, 9, 8, 7, 6, 5, 4, 3, 2, 1][sum % 11])
}

/// What every other digit counts: for Luhn doubled and its digits added, for GS1 tripled.
const DOUBLED: [usize; 10] = [0, 2, 4, 6, 8, 1, 3, 5, 7, 9];
const TRIPLED: [usize; 10] = [0, 3, 6, 9, 12, 15, 18, 21, 24, 27];

/// Luhn and GS1: what the digits, every other from the last counted otherwise, lack to the next ten.
fn with_mod_10_digit(number: &str, counts: [usize; 10]) -> String {
    let digits = number.bytes().rev().map(|byte| usize::from(byte - b'0'));
    let sum: usize = (0..).zip(digits).map(|(i, digit)| [counts[digit], digit][i % 2]).sum();
    format!("{number}{}", (10 - sum % 10) % 10)
}

/// The day (UTC) that parcels arrive, so many business days after the day of hand-over. Saturdays and
/// Sundays do not count, and what is handed over on one starts on Monday; public holidays count as days,
/// as they differ by place. Capped at the last date there is, 9999-12-31.
pub fn delivery_date(handed_over: Timestamp, business_days: u32) -> Date {
    let day = Offset::UTC.to_datetime(handed_over).date();
    let since_monday = i64::from(day.weekday().to_monday_zero_offset());
    // Counted in business days from that Monday, a Saturday or Sunday is the next Monday, the fifth.
    let days = since_monday.min(5) + i64::from(business_days);
    let days = days / 5 * 7 + days % 5 - since_monday;
    day.saturating_add(SignedDuration::from_hours(24 * days))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Given parcels as grams and sides, country and service; then who, for how much and how long.
    const QUOTES: &str = "
        equal: the first by name  | 5000 300 200 100 | DE | Standard | parcelpost 690 2
        equal: the faster         | 2000 300 200 100 | FR | Standard | swiftline 1390 4
        a gram beyond a bracket   | 5001 300 200 100 | DE | Standard | swiftline 940 2
        each at its price         | 1 9 9 9 20000 9 9 9 | DE | Standard | swiftline 2150 2
        too heavy for the post    | 31501 300 200 100 | DE | Standard | swiftline 2690 2
        too heavy for swiftline   | 40001 300 200 100 | DE | Express | freightways 7900 2
        one too long for all but  | 1 9 9 9 1 1751 9 9 | DE | Standard | freightways 9800 3
        the post's longest side   | 1 100 1200 100   | JP | Standard | parcelpost 1890 12
        a millimetre longer       | 1 100 1201 100   | JP | Standard | freightways 29000 25
        the post's largest girth  | 1 1000 500 500   | JP | Standard | parcelpost 1890 12
        a millimetre more around  | 1 1000 501 500   | JP | Standard | freightways 29000 25
        nothing, in lower case    | 0 0 0 0          | gr | Express  | swiftline 2490 2
        out of the Union          | 1 9 9 9          | GB | Express  | swiftline 4990 4
        the heaviest and largest  | 1000000 6000 2500 2500 | JP | Express | freightways 389000 7
        a gram more, none         | 1000001 9 9 9    | DE | Standard |
        beyond any sum, none      | 1 4294967295 4294967295 4294967295 | DE | Standard |
        no parcels, no quote      |                  | DE | Standard |";

    /// The day of the week (UTC) and time of hand-over, business days, and the day of delivery.
    const DATES: &str = "
        Wednesday 2024-03-06T12:00:00Z 1 2024-03-07; Friday 2024-03-08T23:59:59Z 0 2024-03-08;
        Friday 2024-03-08T23:59:59Z 1 2024-03-11;    Friday 2024-03-08T00:00:00Z 6 2024-03-18;
        Saturday 2024-03-09T00:00:00Z 0 2024-03-11;  Saturday 2024-03-09T00:00:00Z 5 2024-03-18;
        Sunday 2024-03-10T23:59:59Z 1 2024-03-12;    Tuesday 2024-12-31T10:00:00Z 4 2025-01-06;
        Tuesday 2024-02-28T10:00:00+14 2 2024-02-29; Friday 2024-03-08T10:00:00Z 4294967295 9999-12-31";

    #[test]
    fn parcels_go_as_the_table_says_also_again_and_out_of_order() {
        let shown = |q: Quote| format!("{} {} {}", q.carrier.name, q.cost_minor, q.business_days);
        for row in QUOTES.lines().skip(1) {
            let row: Vec<&str> = row.split('|').map(str::trim).collect();
            let numbers: Vec<u32> = row[1].split(' ').filter_map(|n| n.parse().ok()).collect();
            let parcels = numbers.as_chunks().0.iter();
            let mut parcels: Vec<_> = parcels.map(|&[g, a, b, c]| (g, [a, b, c])).collect();
            let service = [Standard, Express][usize::from(row[3] == "Express")];
            for _ in 0..2 {
                let quote = cheapest(&parcels, row[2], service);
                assert_eq!(quote.map(shown).unwrap_or_default(), row[4], "{}", row[0]);
                parcels.reverse();
            }
        }
    }

    #[test]
    fn heavier_parcels_cost_no_less_and_the_last_carrier_goes_everywhere() {
        let mut rates = CARRIERS.iter().flat_map(|carrier| carrier.rates);
        assert!(rates.all(|rate| rate.3.is_sorted()));
        assert!(CARRIERS.iter().all(|c| c.brackets_g.is_sorted()));
        assert_eq!(CARRIERS[2].rates.len(), 6);
    }

    #[test]
    fn published_numbers_are_valid_and_their_likes_are_not() {
        assert_eq!(with_mod_10_digit("7992739871", DOUBLED), "79927398713"); // Luhn
        let right = "EE876543216CA RR473124829DE RR473024825DE RR483023820DE 106141412345678908";
        assert!(right.split(' ').all(is_valid_tracking_number));
        let wrong = " EE876543215CA ee876543216CA Ä876543216CA 106141412345678909 10614141234567";
        assert!(!wrong.split(' ').any(is_valid_tracking_number));
    }

    #[test]
    fn a_label_shows_number_order_parcel_weight_and_country() {
        let label = CARRIERS[2].label("095200000000000015", "a^b~c_d", 2, 3, 1_050, "DE");
        let fields = ">;>800095200000000000015|Order a_5Eb_7Ec_5Fd|Parcel 2/3|Weight 1.050 kg|DE";
        for field in fields.split('|') {
            assert!(label.contains(&format!("^FD{field}^FS")), "{field}");
        }
    }

    #[test]
    fn weekends_do_not_count() -> Result<(), Box<dyn std::error::Error>> {
        for row in DATES.split_terminator(';') {
            let row: Vec<&str> = row.split_whitespace().collect();
            let date = delivery_date(row[1].parse()?, row[2].parse()?);
            assert_eq!(date.to_string(), row[3], "{row:?}");
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn distinct_serials_give_distinct_valid_numbers(a: u64, apart in prop_oneof![1..999_u64, 0..=u64::MAX]) {
            let b = a.wrapping_add(apart);
            for carrier in &CARRIERS {
                let number = carrier.tracking_number(a);
                prop_assert!(is_valid_tracking_number(&number));
                let same = a % carrier.serials() == b % carrier.serials();
                prop_assert_eq!(number == carrier.tracking_number(b), same);
            }
        }

        #[test]
        fn a_wrong_digit_is_found_where_the_scheme_promises_it(serial in any::<u64>()) {
            for carrier in &CARRIERS {
                let number = carrier.tracking_number(serial);
                for (at, digit) in number.char_indices().filter(|(_, c)| c.is_ascii_digit()) {
                    for wrong in ('0'..='9').filter(|wrong| *wrong != digit) {
                        let number = format!("{}{wrong}{}", &number[..at], &number[at + 1..]);
                        let both_5 = carrier.scheme == Scheme::S10 && number.as_bytes()[10] == b'5' && at < 10;
                        prop_assert!(!is_valid_tracking_number(&number) || both_5, "{}", number);
                    }
                }
            }
        }

        #[test]
        fn no_text_on_a_label_can_begin_a_command(text in any::<String>()) {
            let label = CARRIERS[0].label(&text, &text, 1, 1, 1, &text);
            let plain = CARRIERS[0].label("", "", 1, 1, 1, "");
            prop_assert!(label.is_ascii() && !label.contains('~'));
            prop_assert_eq!(label.matches('^').count(), plain.matches('^').count());
        }
    }
}
