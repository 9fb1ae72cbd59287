// What a page of clicks is about, as its address says it. The address has the API's own names (from, to, tz,
// unit, bots, and each dimension that is filtered), so that who knows one knows the other. Beside them:
//
//   range=7d        a time that moves with the day, instead of from and to: see `presets`
//   compare=off     the time before is not shown
//
// Days are texts, "2026-11-25". Arithmetic with them needs no time zone.

import { locale } from '../texts.js'

/** @typedef {'hour' | 'day' | 'week' | 'month'} Unit
 * @typedef {{preset: string, from: string, to: string, days: number, today: string, tz: string, unit: Unit, units: Unit[],
 *   compare: boolean, bots: '' | 'include' | 'only', where: Map<string, string[]>}} Range
 * from and to are days, to is the first one after the time; where has the values of each filtered dimension, '' being none */

export const dimensions = ['country', 'referrer', 'browser', 'os', 'device', 'utm_source', 'utm_medium', 'utm_campaign', 'via', 'bot']

/** How many days each one has, the present one included. @type {Record<string, number>} */
export const presets = { today: 1, '7d': 7, '30d': 30, '90d': 90, '12m': 365 }
const usual = '30d'
/** @type {Unit[]} */
const allUnits = ['hour', 'day', 'week', 'month']

/** Hours are shown of a month at most: more of them are too thin to be seen. */
const hourDays = 31

/** @param {string} day */
export const dayNumber = (day) => Math.round(Date.parse(`${day}T00:00:00Z`) / 86400000)
/** @param {number} n */
export const dayAt = (n) => new Date(n * 86400000).toISOString().slice(0, 10)

/** @type {{tz: string, format: Intl.DateTimeFormat} | undefined} */
let made

/** Which day it is somewhere. @param {string} tz @param {Date} [at] */
export function dayIn(tz, at = new Date()) {
  // The way Swedes write a date is the API's, and making a format takes longer than using it.
  if (made?.tz !== tz) made = { tz, format: new Intl.DateTimeFormat('sv', { timeZone: tz, dateStyle: 'short' }) }
  return made.format.format(at)
}

/** @param {string | null} s */
const isDay = (s) => s !== null && /^\d{4}-\d\d-\d\d$/.test(s) && !Number.isNaN(dayNumber(s)) && dayAt(dayNumber(s)) === s

/** @param {string} tz */
export function isZone(tz) {
  try {
    return tz !== '' && Boolean(new Intl.DateTimeFormat('en', { timeZone: tz }))
  } catch {
    return false
  }
}

/** @param {URLSearchParams} query @param {string} [since] the day at which `all` begins; without it there is no `all`
 * @returns {Range} what the address says; what it says wrongly counts as not said */
export function readRange(query, since) {
  const asked = query.get('tz') ?? ''
  const tz = isZone(asked) ? asked : locale().timeZone
  const today = dayIn(tz)
  const tomorrow = dayNumber(today) + 1
  let preset = query.get('range') ?? ''
  let from = '', to = ''
  if (isDay(query.get('from')) && isDay(query.get('to')) && /** @type {string} */ (query.get('from')) < /** @type {string} */ (query.get('to'))) {
    preset = ''
    from = /** @type {string} */ (query.get('from'))
    to = /** @type {string} */ (query.get('to'))
  } else if (preset === 'all' && since) {
    from = since < today ? since : today
    to = dayAt(tomorrow)
  } else {
    if (!Object.hasOwn(presets, preset)) preset = usual
    from = dayAt(tomorrow - presets[preset])
    to = dayAt(tomorrow)
  }
  const days = dayNumber(to) - dayNumber(from)
  const units = allUnits.filter((u) => (u === 'hour' ? days <= hourDays : u === 'day' ? days <= 1100 : u === 'week' ? days > 7 : days > 31))
  const unit = units.find((u) => u === query.get('unit')) ?? (days <= 2 ? 'hour' : days <= 100 ? 'day' : days <= 1100 ? 'week' : 'month')
  const bots = query.get('bots')
  /** @type {Range['where']} */
  const where = new Map()
  for (const d of dimensions) {
    const values = query.get(d)
    if (values !== null) where.set(d, values.split(','))
  }
  return { preset, from, to, days, today, tz, unit, units, compare: query.get('compare') !== 'off', bots: bots === 'include' || bots === 'only' ? bots : '', where }
}

/** @param {URLSearchParams} query @param {Record<string, string | null>} changes null removes
 * @returns {URLSearchParams} the address after a change. What is as usual is not said. */
export function withChanges(query, changes) {
  const q = new URLSearchParams(query)
  for (const [name, value] of Object.entries(changes)) {
    if (value === null) q.delete(name)
    else q.set(name, value)
  }
  if (q.get('range') === usual) q.delete('range')
  return q
}

/** Adds a value to a filter, or takes it away. @param {Range} range @param {string} dimension @param {string} value
 * @returns {Record<string, string | null>} changes of the address */
export function toggled(range, dimension, value) {
  const values = range.where.get(dimension) ?? []
  const next = values.includes(value) ? values.filter((v) => v !== value) : [...values, value]
  return { [dimension]: next.length > 0 ? next.join(',') : null }
}

/** Whether a value can be filtered by: what stands for many cannot, and the API separates values by commas.
 * @param {string} value */
export const canFilter = (value) => value !== '(other)' && !value.includes(',')

/** The parameters of a question to the API about the range. @param {Range} range
 * @param {{except?: string, extra?: Record<string, string>}} [options] a dimension whose filter is left out, and what is asked
 * @returns {URLSearchParams} */
export function ask(range, { except, extra = {} } = {}) {
  const q = new URLSearchParams({ from: range.from, to: range.to, tz: range.tz, ...extra })
  if (range.bots) q.set('bots', range.bots)
  for (const [d, values] of range.where) if (d !== except) q.set(d, values.join(','))
  return q
}

/** @typedef {{clicks: number, visitors?: number, rows: ({start?: string, clicks: number, visitors?: number} & Record<string, any>)[], from: string, to: string}} Clicks
 * @typedef {Clicks & {previous?: Clicks, since: {hours: string, days?: string}}} Answer the API's
 * @typedef {{at: string, open: boolean, now: number | null, before: number | null}} Part a part of the time: `at` is a day, or the time at
 *   which an hour begins; `open` if it is not wholly in the time, or not over; `now` is null if it has not begun */

/** The unit that the API is asked by. Weeks and months are added up here: then the time before, which begins
 * on another day of the week or of the month, can be put beside them day by day. @param {Range} range */
export const askedUnit = (range) => (range.unit === 'hour' ? 'hour' : 'day')

/** Divides the time into parts, those without clicks too, and says how it went against the time before as far
 * as it is over: an hour or a day that still runs is compared with nothing.
 * @param {Range} range @param {Answer} answer by askedUnit @param {Date} [at]
 * @returns {{parts: Part[], over: number, overBefore: number | null, elapsed: number}} the clicks in the `elapsed` hours or days that are over */
export function divide(range, answer, at = new Date()) {
  const hours = range.unit === 'hour'
  const begin = hours ? Date.parse(answer.from) / 3600000 : dayNumber(range.from)
  const steps = hours ? Math.round(Date.parse(answer.to) / 3600000 - begin) : range.days
  const current = hours ? Math.floor(at.getTime() / 3600000) : dayNumber(range.today)
  const place = (/** @type {string} */ start) => (hours ? Math.floor(Date.parse(start) / 3600000) : dayNumber(start.slice(0, 10))) - begin
  const now = new Array(steps).fill(0)
  for (const r of answer.rows) {
    const i = place(/** @type {string} */ (r.start))
    if (i >= 0 && i < steps) now[i] += r.clicks
  }
  /** @type {number[] | null} */
  let before = null
  if (answer.previous) {
    before = new Array(steps).fill(0)
    // The time before is as long, to the hour. Where clocks were changed in it, it begins an hour off its day.
    for (const r of answer.previous.rows) before[Math.min(Math.max(place(/** @type {string} */ (r.start)) + steps, 0), steps - 1)] += r.clicks
  }
  const elapsed = Math.max(0, Math.min(steps, current - begin))
  const sum = (/** @type {number[]} */ a) => a.slice(0, elapsed).reduce((x, y) => x + y, 0)
  /** @type {Part[]} */
  const parts = []
  for (let i = 0; i < steps; i++) {
    const start = startOf(range.unit, begin + i)
    let part = parts[parts.length - 1]
    if (!part || part.at !== start) {
      part = { at: start, open: !hours && i === 0 && start !== range.from, now: null, before: before && 0 }
      parts.push(part)
    }
    if (begin + i <= current) part.now = (part.now ?? 0) + now[i]
    if (begin + i >= current) part.open = true
    if (before) part.before = (part.before ?? 0) + before[i]
  }
  const last = parts[parts.length - 1]
  if (last && range.unit === 'week' && (dayNumber(range.to) + 3) % 7 !== 0) last.open = true
  if (last && range.unit === 'month' && !range.to.endsWith('-01')) last.open = true
  return { parts, over: sum(now), overBefore: before && sum(before), elapsed }
}

/** @param {Unit} unit @param {number} n of the hour or the day */
function startOf(unit, n) {
  if (unit === 'hour') return new Date(n * 3600000).toISOString()
  if (unit === 'week') return dayAt(n - ((n + 3) % 7)) // day 0 was a Thursday, and weeks begin on Monday
  return unit === 'month' ? `${dayAt(n).slice(0, 8)}01` : dayAt(n)
}

/** Names of a part of the time. @param {Range} range @returns {{short: (at: string) => string, long: (at: string) => string}} */
export function partNames({ unit, tz, days }) {
  const { language } = locale()
  const f = (/** @type {Intl.DateTimeFormatOptions} */ o) => new Intl.DateTimeFormat(language, { timeZone: unit === 'hour' ? tz : 'UTC', ...o })
  const short = unit === 'hour' ? f({ hour: 'numeric', minute: '2-digit' })
    : unit === 'month' ? f(days > 366 ? { month: 'short', year: '2-digit' } : { month: 'short' })
      : f(days > 366 ? { day: 'numeric', month: 'short', year: '2-digit' } : { day: 'numeric', month: 'short' })
  const day = f({ day: 'numeric', month: 'short' })
  const long = unit === 'hour' ? f({ weekday: 'short', day: 'numeric', month: 'short', hour: 'numeric', minute: '2-digit' })
    : unit === 'month' ? f({ month: 'long', year: 'numeric' })
      : f({ weekday: unit === 'day' ? 'short' : undefined, day: 'numeric', month: 'short', year: 'numeric' })
  return {
    // Of several days' hours, a day begins with its date.
    short: (at) => (unit === 'hour' && days > 1 && midnight(tz, at) ? day : short).format(new Date(at)),
    long: (at) => long.format(new Date(at)),
  }
}

/** @param {string} tz @param {string} at */
const midnight = (tz, at) => dayIn(tz, new Date(at)) !== dayIn(tz, new Date(Date.parse(at) - 3600000))
