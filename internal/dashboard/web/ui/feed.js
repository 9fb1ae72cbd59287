// A list of links that is fetched page by page, as far as somebody looks. The service hands out cursors, so
// pages come one after the other; a jump far down fetches larger ones.
//
//   new Feed(query, changed)   query: the parameters of GET /links; changed() is called when there is news
//   .rows .total .estimate .done .newestOnly .incomplete .error .clicks
//   .length        how many rows there are or will be
//   .want(n)       makes sure that n rows are there, or all; resolves then, or when it failed
//   .stop()        ends what is under way

import { call, Problem } from '../api.js'

/** @typedef {import('../ui.js').Link} Link */

// Whether the service counts clicks. It says so when it is first asked for them.
let counted = true

export class Feed {
  /** @param {import('../api.js').Query} query @param {() => void} changed */
  constructor(query, changed) {
    this.query = query
    this.changed = changed
    /** @type {Link[]} */
    this.rows = []
    /** @type {number | undefined} */
    this.total = undefined
    this.estimate = false
    this.done = false
    /** @type {number | undefined} */
    this.newestOnly = undefined
    this.incomplete = false
    /** @type {unknown} */
    this.error = null
    this.wanted = 0
    /** @type {string | undefined} */
    this.next = undefined
    /** @type {Promise<void> | null} */
    this.busy = null
    this.abort = new AbortController()
  }

  /** Whether the service counts clicks. */
  get clicks() {
    return counted
  }

  get length() {
    if (this.done) return this.rows.length
    // Of the rows that may follow at least one is shown, so that somebody can scroll to it.
    return Math.max(this.total ?? 0, this.rows.length + 1)
  }

  /** @param {number} n */
  want(n) {
    this.wanted = Math.max(this.wanted, n)
    this.busy ??= this.#fetch().finally(() => (this.busy = null))
    return this.busy
  }

  stop() {
    this.abort.abort()
  }

  async #fetch() {
    this.error = null
    while (!this.done && this.rows.length < this.wanted) {
      const missing = this.wanted - this.rows.length
      const limit = this.rows.length === 0 && missing <= 100 ? 100 : missing <= 300 ? 300 : 1000
      try {
        const { data } = await call('GET', '/links', { query: { ...this.query, limit, cursor: this.next, with: counted ? 'clicks' : null }, signal: this.abort.signal })
        this.rows.push(...data.links)
        this.next = data.next
        this.done = !data.next
        this.total = data.total ?? this.total
        this.estimate = data.total_is_estimate ?? this.estimate
        this.newestOnly = data.newest_only ?? this.newestOnly
        this.incomplete = data.incomplete ?? false
      } catch (err) {
        if (this.abort.signal.aborted) return
        if (err instanceof Problem && err.code === 'clicks_off' && counted) {
          counted = false
          continue
        }
        this.error = err
        this.wanted = 0
      }
      this.changed()
      if (this.error) return
    }
  }
}
