// Times that people type: wall-clock times in the time zone of the page, as <input type=datetime-local> has them.
//
//   toWall(when)    '2026-11-25T19:00' of what the API or Date says; '' for nothing
//   fromWall(wall)  the time in UTC as the API takes it; null for nothing
//   later(days)     the wall-clock time so many days from now

import { locale } from '../texts.js'

/** @param {number} ms */
function wallOf(ms) {
  // Swedish writes dates as ISO 8601 does.
  return new Intl.DateTimeFormat('sv-SE', { timeZone: locale().timeZone, dateStyle: 'short', timeStyle: 'short' }).format(ms).replace(' ', 'T')
}

/** @param {string | number | Date | null | undefined} when */
export const toWall = (when) => (when ? wallOf(new Date(when).getTime()) : '')

/** @param {string} wall @returns {string | null} */
export function fromWall(wall) {
  if (!wall) return null
  const asUTC = Date.parse(`${wall}Z`)
  if (Number.isNaN(asUTC)) return null
  // The offset of the zone is that of the time itself, which is found in two steps: the first is off by a
  // change of the clocks at most.
  let at = asUTC
  for (let i = 0; i < 2; i++) at = asUTC - (Date.parse(`${wallOf(at)}Z`) - Math.floor(at / 60000) * 60000)
  return new Date(at).toISOString()
}

/** @param {number} days */
export const later = (days) => wallOf(Date.now() + days * 86400e3)
