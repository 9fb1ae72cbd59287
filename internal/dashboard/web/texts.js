// The words of the page, and numbers and times as the person reads them. All words of a language stand in
// one file, texts/LANGUAGE.js: {'section.key': 'text with {placeholders}'}. A text that depends on a number
// is an object of plural forms, {one: '{n} link', other: '{n} links'}, chosen by the placeholder n.
// To add a language, copy texts/en.js, translate it, and name it in `languages`.
//
//   t(key, values)     the text; a number among the values is written as the language does
//   format.n(1234)     1,234        format.compact(12345)  12K        format.percent(0.123)  12%
//   format.date(when), .time(when), .dateTime(when), .ago(when): `when` as the API or Date says it
//   locale()           {language, timeZone} for an Intl of your own

/** @type {Record<string, string>} each language's name in itself */
export const languages = { en: 'English', de: 'Deutsch' }

/** @typedef {string | Partial<Record<Intl.LDMLPluralRule, string>>} Text
 * @typedef {string | number | Date} When */

/** @type {Record<string, Text>} */
let words = {}
let language = 'en'
let timeZone = Intl.DateTimeFormat().resolvedOptions().timeZone
/** @type {Map<string, any>} */
let made = new Map()

/** Takes a language and a time zone; '' stands for the browser's own. @param {string} lang @param {string} zone */
export async function load(lang, zone) {
  const wanted = [lang, ...navigator.languages.map((l) => l.slice(0, 2))]
  const base = wanted.find((l) => l in languages) ?? 'en'
  words = (await import(`./texts/${base}.js`)).default
  // Of the variants of the language the browser's own, for its dates: en-GB writes others than en-US.
  language = navigator.languages.find((l) => l.startsWith(base)) ?? base
  timeZone = zone || Intl.DateTimeFormat().resolvedOptions().timeZone
  made = new Map()
  document.documentElement.lang = base
}

export function locale() {
  return { language, timeZone }
}

/** @template T @param {string} key @param {() => T} make @returns {T} */
function once(key, make) {
  if (!made.has(key)) made.set(key, make())
  return made.get(key)
}

/** @param {string} key @param {Record<string, string | number>} [values] @returns {string} */
export function t(key, values = {}) {
  let text = words[key]
  if (text === undefined) {
    console.error(`no text for ${key}`)
    return key
  }
  if (typeof text !== 'string') {
    const form = once('plural', () => new Intl.PluralRules(language)).select(Number(values.n))
    text = text[form] ?? text.other ?? key
  }
  return text.replace(/\{(\w+)\}/g, (whole, name) => {
    const v = values[name]
    return v === undefined ? whole : typeof v === 'number' ? format.n(v) : v
  })
}

/** @type {[Intl.RelativeTimeFormatUnit, number][]} in seconds */
const units = [['year', 31536000], ['month', 2592000], ['week', 604800], ['day', 86400], ['hour', 3600], ['minute', 60], ['second', 1]]

/** @param {Intl.DateTimeFormatOptions} options @param {When} when */
function dated(options, when) {
  return once(JSON.stringify(options), () => new Intl.DateTimeFormat(language, { timeZone, ...options })).format(new Date(when))
}

export const format = {
  /** @param {number} v */
  n: (v) => once('n', () => new Intl.NumberFormat(language)).format(v),
  /** @param {number} v */
  compact: (v) => once('c', () => new Intl.NumberFormat(language, { notation: 'compact', maximumFractionDigits: 1 })).format(v),
  /** @param {number} v a share: 0.5 is half */
  percent: (v) => once('p', () => new Intl.NumberFormat(language, { style: 'percent', maximumFractionDigits: 0 })).format(v),
  /** @param {When} when */
  date: (when) => dated({ year: 'numeric', month: 'short', day: 'numeric' }, when),
  /** @param {When} when */
  time: (when) => dated({ hour: 'numeric', minute: '2-digit' }, when),
  /** @param {When} when */
  dateTime: (when) => dated({ year: 'numeric', month: 'short', day: 'numeric', hour: 'numeric', minute: '2-digit' }, when),
  /** "3 minutes ago", "in 2 days". @param {When} when */
  ago(when) {
    const seconds = (new Date(when).getTime() - Date.now()) / 1000
    const [unit, length] = units.find(([, l]) => Math.abs(seconds) >= l) ?? ['second', 1]
    return once('r', () => new Intl.RelativeTimeFormat(language, { numeric: 'auto' })).format(Math.round(seconds / length), unit)
  },
}
