// Countries as visitors' addresses have them, ISO 3166-1 alpha-2, and as the map has them: numeric. Names
// come from the browser, in the person's language.

import { locale } from '../texts.js'

// The countries of the map, numeric code and alpha-2, by ISO 3166-1. Kosovo has no number there, nor in the map.
const pairs =
  '004AF008AL010AQ012DZ024AO031AZ032AR036AU040AT044BS050BD051AM056BE064BT068BO070BA072BW076BR084BZ090SB096BN100BG104MM108BI' +
  '112BY116KH120CM124CA140CF144LK148TD152CL156CN158TW170CO178CG180CD188CR191HR192CU196CY203CZ204BJ208DK214DO218EC222SV226GQ' +
  '231ET232ER233EE238FK242FJ246FI250FR260TF262DJ266GA268GE270GM275PS276DE288GH300GR304GL320GT324GN328GY332HT340HN348HU352IS' +
  '356IN360ID364IR368IQ372IE376IL380IT384CI388JM392JP398KZ400JO404KE408KP410KR414KW417KG418LA422LB426LS428LV430LR434LY440LT' +
  '442LU450MG454MW458MY466ML478MR484MX496MN498MD499ME504MA508MZ512OM516NA524NP528NL540NC548VU554NZ558NI562NE566NG578NO586PK' +
  '591PA598PG600PY604PE608PH616PL620PT624GW626TL630PR634QA642RO643RU646RW682SA686SN688RS694SL703SK704VN705SI706SO710ZA716ZW' +
  '724ES728SS729SD732EH740SR748SZ752SE756CH760SY762TJ764TH768TG780TT784AE788TN792TR795TM800UG804UA807MK818EG826GB834TZ840US' +
  '854BF858UY860UZ862VE887YE894ZM'

/** @type {Map<string, string>} */
const letters = new Map()
for (let i = 0; i < pairs.length; i += 5) letters.set(pairs.slice(i, i + 3), pairs.slice(i + 3, i + 5))

/** @param {string | undefined} numeric @param {string} name in the map @returns {string} '' if the map's country has no code */
export const alpha2 = (numeric, name) => letters.get(numeric ?? '') ?? (name === 'Kosovo' ? 'XK' : '')

/** Countries that are too small for the map: alpha-2, and degrees east and north of about the middle.
 * @type {Record<string, [number, number]>} */
export const small = {
  AD: [1.6, 42.5], AG: [-61.8, 17.1], AW: [-70, 12.5], BB: [-59.5, 13.2], BH: [50.5, 26], BM: [-64.8, 32.3], CV: [-24, 15.1], CW: [-69, 12.2],
  FO: [-7, 62], GI: [-5.4, 36.1], GP: [-61.5, 16.2], GU: [144.8, 13.4], HK: [114.2, 22.3], KM: [43.3, -11.9], LC: [-61, 13.9], LI: [9.5, 47.2],
  MC: [7.4, 43.7], MO: [113.5, 22.2], MQ: [-61, 14.7], MT: [14.4, 35.9], MU: [57.6, -20.3], MV: [73.5, 4.2], PF: [-149.4, -17.7], RE: [55.5, -21.1],
  SC: [55.5, -4.7], SG: [103.8, 1.35], SM: [12.5, 43.9], ST: [6.6, 0.2], TO: [-175.2, -21.2], WS: [-172.1, -13.8],
}

/** @type {{language: string, names: Intl.DisplayNames} | undefined} */
let made

/** @param {string} code alpha-2 @returns {string} its name in the person's language, or the code */
export function countryName(code) {
  const { language } = locale()
  if (made?.language !== language) made = { language, names: new Intl.DisplayNames(language, { type: 'region' }) }
  try {
    return made.names.of(code) ?? code
  } catch {
    return code // what a header said was no country
  }
}
