// The clicks of the last days of a link, for a sparkline in a list. A list asks only for the links that are
// seen, a few at a time, and what was told is kept for a minute.

import { call } from '../api.js'
import { locale } from '../texts.js'
import { dayAt, dayIn, dayNumber } from './range.js'

const days = 14
const kept = 60_000
const atOnce = 3

/** @type {Map<string, {until: number, values: Promise<number[]>}>} */
const known = new Map()
/** @type {(() => void)[]} */
const waiting = []
let busy = 0

/** Resolves with the clicks of each of the last 14 days, the present one last. Without the scope `read`, where no
 * clicks are counted, or when `signal` fires, it rejects. @param {string} code @param {AbortSignal} [signal] @returns {Promise<number[]>} */
export function lastDays(code, signal) {
  const key = `${code} ${locale().timeZone}`
  const had = known.get(key)
  if (had && had.until > Date.now()) return had.values
  const values = fetchDays(code, signal)
  known.set(key, { until: Date.now() + kept, values })
  values.catch(() => known.delete(key))
  if (known.size > 2000) known.delete(/** @type {string} */ (known.keys().next().value))
  return values
}

/** @param {string} code @param {AbortSignal} [signal] */
async function fetchDays(code, signal) {
  if (busy >= atOnce) await new Promise((go) => waiting.push(() => go(undefined)))
  busy++
  try {
    signal?.throwIfAborted()
    const tz = locale().timeZone
    const first = dayNumber(dayIn(tz)) - days + 1
    const { data } = await call('GET', `/links/${encodeURIComponent(code)}/clicks`, { query: { from: dayAt(first), tz, unit: 'day' }, signal })
    const values = new Array(days).fill(0)
    for (const row of data.rows) values[Math.min(Math.max(dayNumber(row.start.slice(0, 10)) - first, 0), days - 1)] += row.clicks
    return values
  } finally {
    busy--
    waiting.shift()?.()
  }
}
