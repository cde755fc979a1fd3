//! Carriers: what parcels cost to send, how long they take, their tracking numbers and labels.
//!
//! Three built-in carriers, each a constant table. The carriers, their limits, prices and days are
//! invented; the schemes of their numbers and the language of their labels are real.
//! Pure: the same parcels and serials give the same quotes, numbers and labels, so a replay repeats them.

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

/// A zone and service, its business days, and the price of a parcel in each weight bracket, in minor
/// units of EUR.
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

/// The cheapest carrier that takes all parcels, each a weight in grams and its outer sides in
/// millimetres; of equals the faster, then the first by name. None if a parcel is beyond what any
/// carrier takes, or if there is none to send. A country (ISO 3166-1 alpha-2, in either case) neither
/// the shop's own nor in the European Union is charged as the world.
pub fn cheapest(parcels: &[(u32, [u32; 3])], country: &str, service: Service) -> Option<Quote> {
    let zone = Zone::of(country);
    let quotes = CARRIERS.iter().filter_map(|carrier| carrier.quote(parcels, zone, service));
    quotes.min_by_key(|quote| (quote.cost_minor, quote.business_days, quote.carrier.name))
}

impl Zone {
    fn of(country: &str) -> Zone {
        let is_it = |code: &str| code.eq_ignore_ascii_case(country);
        match country {
            _ if is_it(HOME) => Home,
            _ if EU.split(' ').any(is_it) => Eu,
            _ => World,
        }
    }
}

impl Carrier {
    #[rustfmt::skip]
    fn quote(&'static self, parcels: &[(u32, [u32; 3])], zone: Zone, service: Service) -> Option<Quote> {
        let mut rates = self.rates.iter();
        let &(.., business_days, prices) = rates.find(|rate| (rate.0, rate.1) == (zone, service))?;
        let mut cost_minor = 0;
        for &(weight_g, outer_mm) in parcels {
            let side = outer_mm.into_iter().max()?;
            let all_sides: u64 = outer_mm.into_iter().map(u64::from).sum();
            if side > self.max_side_mm || 2 * all_sides - u64::from(side) > self.max_side_and_girth_mm {
                return None;
            }
            cost_minor += prices[self.brackets_g.iter().position(|&most| weight_g <= most)?];
        }
        (!parcels.is_empty()).then_some(Quote { carrier: self, cost_minor, business_days })
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
                format!("C{letter}{number}{}{HOME}", s10_digit(&number))
            }
            Scheme::Luhn => {
                let number = format!("7{serial:010}");
                format!("{number}{}", mod_10_digit(&number, DOUBLED))
            }
            Scheme::Sscc => {
                let (extension, reference) = (serial / 1_000_000_000, serial % 1_000_000_000);
                let number = format!("{extension}{GS1_COMPANY}{reference:09}");
                format!("{number}{}", mod_10_digit(&number, TRIPLED))
            }
        }
    }

    /// A 4 by 6 inch label at 203 dpi, in ZPL II (Zebra's programming guide): the tracking number as Code
    /// 128 (`^BC`), for an SSCC as GS1-128 with application identifier 00; the order, the parcel among
    /// those of the order, weight and country. Never a name or an address. Texts are hexadecimal where
    /// they are no plain ASCII (`^FH`), so none can begin a command.
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
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'^' | b'~' | b'_');
    let coded = |byte| if plain(byte) { char::from(byte).into() } else { format!("_{byte:02X}") };
    text.bytes().map(coded).collect()
}

#[derive(Debug, PartialEq, Eq)]
enum Scheme {
    /// UPU standard S10, 13 characters: service indicator, number of 8 digits, check digit, country.
    /// The indicators CA to CU are parcel post; CV is for insured parcels, CZ needs an agreement. The check
    /// digit covers the number alone.
    S10,
    /// The express carrier's own, 12 digits: 7, serial of 10 digits, check digit by Luhn's formula (ISO/IEC
    /// 7812-1, annex B). Shorter than card numbers, lest a filter take it for one.
    Luhn,
    /// The serial shipping container code of the GS1 General Specifications, 18 digits: extension digit,
    /// company prefix, serial reference, check digit.
    Sscc,
}

/// The second letters of the S10 service indicators in use.
const SERVICE_LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTU";
const S10_NUMBERS: u64 = 100_000_000;
/// GS1 keeps prefixes from 952 for examples: no company ships under this one.
const GS1_COMPANY: &str = "9520000";

/// Whether a tracking number, of any carrier that uses one of the three schemes, has the form and the
/// check digit of its scheme. One wrong digit is always found, but for S10: that gives the check digit 5 to
/// the remainders 0 and 6, so it misses a wrong digit of its number that turns one into the other.
pub fn is_valid_tracking_number(s: &str) -> bool {
    let shape = s.bytes().map(|byte| match byte {
        b'0'..=b'9' => '9',
        b'A'..=b'Z' => 'A',
        _ => '?',
    });
    let has = |at: usize, digit: u32| s[at..=at] == digit.to_string();
    match shape.collect::<String>().as_str() {
        "AA999999999AA" => has(10, s10_digit(&s[2..10])),
        "999999999999" => s.starts_with('7') && has(11, mod_10_digit(&s[..11], DOUBLED)),
        "999999999999999999" => has(17, mod_10_digit(&s[..17], TRIPLED)),
        _ => false,
    }
}

/// UPU S10: 11 less the remainder by 11 of the weighted sum; for 10 stands 0, for 11 stands 5.
fn s10_digit(number: &str) -> u32 {
    let digits = number.chars().filter_map(|digit| digit.to_digit(10));
    let weighted = digits.zip([8, 6, 4, 2, 3, 5, 9, 7]).map(|(digit, weight)| digit * weight);
    match 11 - weighted.sum::<u32>() % 11 {
        10 => 0,
        11 => 5,
        digit => digit,
    }
}

/// What each digit of every other place counts: for Luhn doubled and its digits added, for GS1 tripled.
const DOUBLED: [u32; 10] = [0, 2, 4, 6, 8, 1, 3, 5, 7, 9];
const TRIPLED: [u32; 10] = [0, 3, 6, 9, 12, 15, 18, 21, 24, 27];

/// What lacks to the next ten of all digits, every other from the right counted otherwise.
fn mod_10_digit(number: &str, counts: [u32; 10]) -> u32 {
    let digits = number.chars().rev().filter_map(|digit| digit.to_digit(10));
    let digits = digits.enumerate();
    let counted = digits.map(|(i, digit)| if i % 2 == 0 { counts[digit as usize] } else { digit });
    (10 - counted.sum::<u32>() % 10) % 10
}

/// The day (UTC) that parcels arrive, so many business days after the day of hand-over. Saturdays and
/// Sundays do not count, and what is handed over on one starts on Monday; public holidays count as days,
/// as they differ by place. Capped at the last date there is, 9999-12-31.
pub fn delivery_date(handed_over: Timestamp, business_days: u32) -> Date {
    let day = Offset::UTC.to_datetime(handed_over).date();
    let since_monday = i64::from(day.weekday().to_monday_zero_offset());
    let (to_start, weekday) = if since_monday < 5 { (0, since_monday) } else { (7 - since_monday, 0) };
    let days = weekday + i64::from(business_days);
    let days = to_start - weekday + days / 5 * 7 + days % 5;
    day.saturating_add(SignedDuration::from_hours(24 * days))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Given parcels as grams and sides, country and service; then who, for how much and how long.
    const QUOTES: &str = "
        equal: the first by name   | 5000 300 200 100 | DE | Standard | parcelpost 690 2
        equal: the faster          | 2000 300 200 100 | FR | Standard | swiftline 1390 4
        the first bracket's edge   | 2000 300 200 100 | DE | Standard | parcelpost 520 2
        a gram beyond it           | 2001 300 200 100 | DE | Standard | parcelpost 690 2
        no weight and no size      | 0 0 0 0          | DE | Express  | swiftline 990 1
        each parcel at its price   | 1 9 9 9 20000 9 9 9 | DE | Standard | swiftline 2150 2
        too heavy for the post     | 31501 300 200 100 | DE | Standard | swiftline 2690 2
        too heavy for swiftline    | 40001 300 200 100 | DE | Express | freightways 7900 2
        one too large for all but  | 1 9 9 9 1 1751 9 9 | DE | Standard | freightways 9800 3
        the post's longest side    | 1 100 1200 100   | JP | Standard | parcelpost 1890 12
        a millimetre longer        | 1 100 1201 100   | JP | Standard | freightways 29000 25
        the post's largest girth   | 1 1000 500 500   | JP | Standard | parcelpost 1890 12
        a millimetre more around   | 1 1000 501 500   | JP | Standard | freightways 29000 25
        in lower case              | 1 9 9 9          | gr | Express  | swiftline 2490 2
        no country of the Union    | 1 9 9 9          | GB | Express  | swiftline 4990 4
        the heaviest of all        | 1000000 6000 2500 2500 | JP | Express | freightways 389000 7
        a gram more                | 1000001 9 9 9    | DE | Standard | none
        beyond any sum             | 1 4294967295 4294967295 4294967295 | DE | Standard | none
        no parcels                 |                  | DE | Standard | none";

    #[test]
    fn parcels_go_as_the_table_says_also_again_and_out_of_order() {
        for row in QUOTES.lines().skip(1) {
            let row: Vec<&str> = row.split('|').map(str::trim).collect();
            let numbers: Vec<u32> = row[1].split(' ').filter_map(|n| n.parse().ok()).collect();
            let parcels = numbers.as_chunks().0.iter();
            let mut parcels: Vec<_> = parcels.map(|&[g, a, b, c]| (g, [a, b, c])).collect();
            let service = if row[3] == "Express" { Express } else { Standard };
            for _ in 0..2 {
                let shown = cheapest(&parcels, row[2], service).map_or("none".into(), |quote| {
                    format!("{} {} {}", quote.carrier.name, quote.cost_minor, quote.business_days)
                });
                assert_eq!(shown, row[4], "{}", row[0]);
                parcels.reverse();
            }
        }
    }

    #[test]
    fn heavier_parcels_cost_more_and_the_last_carrier_goes_everywhere() {
        for carrier in &CARRIERS {
            assert!(carrier.brackets_g.is_sorted());
            assert!(carrier.rates.iter().all(|rate| rate.3.is_sorted()));
        }
        assert_eq!(CARRIERS[2].rates.len(), 6);
    }

    #[test]
    fn published_numbers_are_valid_and_their_likes_are_not() {
        // The S10 and GS1 examples in common use; Luhn's is 7992739871 with the digit 3.
        for valid in ["EE876543216CA", "RR473124829DE", "106141412345678908", "799273987131"] {
            assert!(is_valid_tracking_number(valid) || valid.len() == 12, "{valid}");
        }
        assert_eq!(mod_10_digit("7992739871", DOUBLED), 3);
        for wrong in [
            "",
            "EE876543215CA",
            "ee876543216CA",
            "EE87654321 CA",
            "10614141234567890",
            "ÄE87654321CA",
            "106141412345678909",
            "812345678903",
        ] {
            assert!(!is_valid_tracking_number(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_label_shows_number_order_parcel_weight_and_country() {
        let label = CARRIERS[2].label("095200000000000015", "a^b~c_d", 2, 3, 1_050, "DE");
        let shown =
            ["^FD>;>800095200000000000015^FS", "^FDOrder a_5Eb_7Ec_5Fd^FS", "^FDParcel 2/3^FS", "1.050 kg", "^FDDE^FS"];
        assert!(shown.iter().all(|part| label.contains(part)), "{label}");
    }

    #[test]
    fn weekends_do_not_count() {
        for (handed_over, business_days, delivered) in [
            ("2024-03-06T12:00:00Z", 1, "2024-03-07"), // Wednesday
            ("2024-03-08T23:59:59Z", 0, "2024-03-08"), // Friday
            ("2024-03-08T23:59:59Z", 1, "2024-03-11"),
            ("2024-03-08T00:00:00Z", 6, "2024-03-18"),
            ("2024-03-09T00:00:00Z", 0, "2024-03-11"), // Saturday
            ("2024-03-09T00:00:00Z", 5, "2024-03-18"),
            ("2024-03-10T23:59:59Z", 1, "2024-03-12"),      // Sunday
            ("2024-12-31T10:00:00Z", 4, "2025-01-06"),      // over a year's end
            ("2024-02-28T10:00:00+14:00", 2, "2024-02-29"), // still Tuesday in UTC
            ("2024-03-08T10:00:00Z", u32::MAX, "9999-12-31"),
        ] {
            let handed_over: Result<Timestamp, _> = handed_over.parse();
            let delivery = handed_over.map(|at| delivery_date(at, business_days).to_string());
            assert_eq!(delivery.ok().as_deref(), Some(delivered));
        }
    }

    proptest! {
        #[test]
        fn distinct_serials_give_distinct_valid_numbers(a in any::<u64>(), b in any::<u64>(), near in 1..999_u64) {
            for carrier in &CARRIERS {
                let number = carrier.tracking_number(a);
                prop_assert!(is_valid_tracking_number(&number));
                for b in [b, a.wrapping_add(near)] {
                    let same = a % carrier.serials() == b % carrier.serials();
                    prop_assert_eq!(number == carrier.tracking_number(b), same);
                }
            }
        }

        #[test]
        fn a_wrong_digit_is_found_where_the_scheme_promises_it(serial in any::<u64>()) {
            for carrier in &CARRIERS {
                let number = carrier.tracking_number(serial);
                for (at, digit) in number.char_indices().filter(|(_, c)| c.is_ascii_digit()) {
                    for wrong in ('0'..='9').filter(|wrong| *wrong != digit) {
                        let mut number = number.clone();
                        number.replace_range(at..=at, &wrong.to_string());
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
