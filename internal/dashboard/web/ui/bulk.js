// Several links at once: which are selected, and what is done to them. The API changes one link at a time, so
// this goes through them, a few at once, and waits where the service asks for that. Whatever was done can be
// undone for some seconds; deleting for good happens only after them, since nothing brings a target back.
//
//   new Bulk(app, changed, reload)     changed() when what is shown changes; reload() when the list has changed
//   .has(code) .size .set(rows, on) .clear()
//   .change(rows, patch) .remove(rows)
//   .bar(feed)     the bar with the actions, nothing while none is selected
//   .hide(feed)    takes the links that are being deleted out of the list

import { call, Problem } from '../api.js'
import { html, icon, nothing, field, copy } from '../ui.js'
import { fromWall, later } from './when.js'
import { locale, t } from '../texts.js'

/** @typedef {import('../ui.js').Link} Link
 * @typedef {{disabled?: boolean | null, expires_at?: string | null, tags?: string[] | null}} Patch */

const atOnce = 6
const undoFor = 8000 // milliseconds

// Links that wait for their end, of all lists of this page: whoever goes to another section deletes all the same.
/** @type {Map<string, Link>} */
const ending = new Map()
/** @type {Set<() => Promise<void>>} */
const ends = new Set()

addEventListener('pagehide', () => {
  for (const code of ending.keys()) call('DELETE', `/links/${encodeURIComponent(code)}`, { keepalive: true }).catch(() => {})
  ending.clear()
})
addEventListener('beforeunload', (e) => {
  // So many requests may not all leave with the page.
  if (ending.size > 20) e.preventDefault()
})

export class Bulk {
  /** @param {import('../app.js').App} app @param {() => void} changed @param {() => void} reload */
  constructor(app, changed, reload) {
    this.app = app
    this.changed = changed
    this.reload = reload
    /** @type {Map<string, Link>} */
    this.chosen = new Map()
    /** @type {{done: number, of: number, stop: AbortController} | null} */
    this.progress = null
    app.leaving.add(finish)
  }

  get size() {
    return this.chosen.size
  }

  /** @param {string} code */
  has(code) {
    return this.chosen.has(code)
  }

  /** @param {Link[]} rows @param {boolean} on */
  set(rows, on) {
    for (const l of rows) {
      if (on && !l.deleted) this.chosen.set(l.code, l)
      else this.chosen.delete(l.code)
    }
    this.changed()
  }

  clear() {
    if (this.chosen.size === 0) return
    this.chosen.clear()
    this.changed()
  }

  /** @param {import('./feed.js').Feed | undefined} feed */
  hide(feed) {
    if (!feed || ending.size === 0) return
    const left = feed.rows.filter((l) => !ending.has(l.code))
    const gone = feed.rows.length - left.length
    if (gone === 0) return
    feed.rows = left
    if (feed.total !== undefined) feed.total = Math.max(0, feed.total - gone)
  }

  /** @param {import('./feed.js').Feed} feed */
  bar(feed) {
    if (this.progress) {
      const { done, of, stop } = this.progress
      return html`<div class="bulk" role="region" aria-label=${t('bulk.label')}>
        <span>${t('bulk.progress', { done, of })}</span><progress max=${of} value=${done} aria-label=${t('bulk.label')}></progress>
        <button type="button" class="button button-small" @click=${() => stop.abort()}>${t('bulk.stop')}</button></div>`
    }
    if (this.size === 0) return nothing
    const rows = () => [...this.chosen.values()]
    const act = (/** @type {'tag' | 'pause' | 'play' | 'clock' | 'copy'} */ pic, /** @type {string} */ label, /** @type {() => unknown} */ run) =>
      html`<button type="button" class="button button-small" title=${label} @click=${run}>${icon(pic)}<span>${label}</span></button>`
    const more = !feed.done && feed.rows.every((l) => l.deleted || this.has(l.code))
    return html`<div class="bulk" role="region" aria-label=${t('bulk.label')}>
      <span class="bulk-n">${t('bulk.selected', { n: this.size })}</span>
      ${more ? html`<button type="button" class="link-button" @click=${() => this.all(feed)}>${feed.total && !feed.estimate ? t('bulk.all', { n: feed.total }) : t('bulk.all_matching')}</button>` : nothing}
      <span class="bulk-acts">
        ${act('copy', t('ui.copy'), async () => this.app.toast(t((await copy(rows().map((l) => l.short_url).join('\n'))) ? 'ui.copied' : 'ui.not_copied')))}
        ${act('tag', t('bulk.tag'), () => this.tag(rows()))}
        ${act('pause', t('bulk.disable'), () => this.change(rows(), { disabled: true }))}
        ${act('play', t('bulk.enable'), () => this.change(rows(), { disabled: null }))}
        ${act('clock', t('bulk.expire'), () => this.expire(rows()))}
        <button type="button" class="button button-small button-danger" title=${t('link.delete')} @click=${() => this.remove(rows())}>${icon('trash')}<span>${t('link.delete')}</span></button>
        <button type="button" class="icon-button" title=${t('bulk.clear')} aria-label=${t('bulk.clear')} @click=${() => this.clear()}>${icon('close')}</button>
      </span>
    </div>`
  }

  /** Selects what is not on the screen yet, too. @param {import('./feed.js').Feed} feed */
  async all(feed) {
    const stop = new AbortController()
    const left = feed.abort.signal // another search, or another section
    while (!feed.done && !feed.error && !stop.signal.aborted && !left.aborted) {
      this.progress = { done: feed.rows.length, of: Math.max(feed.total ?? 0, feed.rows.length), stop }
      this.changed()
      await feed.want(feed.rows.length + 1000)
    }
    this.progress = null
    if (left.aborted) this.changed()
    else this.set(feed.rows, true)
  }

  /** @param {Link[]} rows */
  async tag(rows) {
    let add = '', remove = ''
    const done = await this.app.dialog((/** @type {(v?: boolean) => void} */ close) => html`
      <form class="stack" @submit=${(/** @type {Event} */ e) => { e.preventDefault(); close(true) }}>
        ${field({ id: 'bulk-add', label: t('bulk.tag_add'), hint: t('bulk.tag_hint'), control: html`<input id="bulk-add" autofocus autocomplete="off" maxlength="200" aria-describedby="bulk-add-about" @input=${(/** @type {any} */ e) => (add = e.currentTarget.value)}>` })}
        ${field({ id: 'bulk-remove', label: t('bulk.tag_remove'), control: html`<input id="bulk-remove" autocomplete="off" maxlength="200" aria-describedby="bulk-remove-about" @input=${(/** @type {any} */ e) => (remove = e.currentTarget.value)}>` })}
        <div class="actions"><button type="button" class="button" @click=${() => close()}>${t('ui.cancel')}</button><button class="button button-primary">${t('bulk.apply')}</button></div>
      </form>`, { title: t('bulk.tag_title', { n: rows.length }) })
    const words = (/** @type {string} */ s) => s.split(',').map((w) => w.trim()).filter(Boolean)
    if (!done || (words(add).length === 0 && words(remove).length === 0)) return
    await this.#each(rows, (now) => {
      const tags = [...new Set([...(now.tags ?? []).filter((w) => !words(remove).includes(w)), ...words(add)])]
      return { tags: tags.length > 0 ? tags : null }
    })
  }

  /** @param {Link[]} rows */
  async expire(rows) {
    let wall = later(7)
    const done = await this.app.dialog((/** @type {(v?: string) => void} */ close) => html`
      <form class="stack" @submit=${(/** @type {Event} */ e) => { e.preventDefault(); close('then') }}>
        ${field({ id: 'bulk-when', label: t('edit.expires'), hint: t('edit.zone', { zone: locale().timeZone }), control: html`<input id="bulk-when" type="datetime-local" required autofocus .defaultValue=${wall} aria-describedby="bulk-when-about" @input=${(/** @type {any} */ e) => (wall = e.currentTarget.value)}>` })}
        <div class="actions"><button type="button" class="button" @click=${() => close('never')}>${t('bulk.never')}</button><button class="button button-primary">${t('bulk.apply')}</button></div>
      </form>`, { title: t('bulk.expire_title', { n: rows.length }) })
    if (done) await this.change(rows, { expires_at: done === 'never' ? null : fromWall(wall) })
  }

  /** @param {Link[]} rows @param {Patch} patch */
  change(rows, patch) {
    return this.#each(rows, () => patch)
  }

  /** Changes links as they are now, and undoes no change that somebody else made since.
   * @param {Link[]} rows @param {(now: Link) => Patch} make */
  async #each(rows, make) {
    /** @type {Map<Link, {patch: Patch, etag: string | null}>} */
    const undo = new Map()
    const failed = await this.#go(rows, async (l) => {
      const path = `/links/${encodeURIComponent(l.code)}`
      for (let tries = 0; ; tries++) {
        const was = await call('GET', path)
        const patch = make(was.data)
        try {
          const { etag } = await call('PATCH', path, { body: patch, ifMatch: was.etag })
          undo.set(l, { etag, patch: Object.fromEntries(Object.keys(patch).map((k) => [k, was.data[/** @type {keyof Patch} */ (k)] ?? null])) })
          return
        } catch (err) {
          if (!(err instanceof Problem && err.status === 412) || tries >= 3) throw err
        }
      }
    })
    this.clear()
    this.reload()
    this.#tell('bulk.changed', undo.size, failed, async () => {
      const left = await this.#go([...undo.keys()], async (l) => {
        const { patch, etag } = /** @type {{patch: Patch, etag: string | null}} */ (undo.get(l))
        await call('PATCH', `/links/${encodeURIComponent(l.code)}`, { body: patch, ifMatch: etag })
      })
      this.reload()
      this.#tell('bulk.undone', undo.size - left.length, left)
    })
  }

  /** @param {Link[]} rows */
  remove(rows) {
    for (const l of rows) {
      ending.set(l.code, l)
      this.chosen.delete(l.code)
    }
    this.changed()
    const end = async () => {
      if (!ends.delete(end)) return
      close()
      const left = rows.filter((l) => ending.has(l.code))
      const failed = await this.#go(left, async (l) => {
        await call('DELETE', `/links/${encodeURIComponent(l.code)}`)
      }, rows.length > 20)
      for (const l of left) ending.delete(l.code)
      if (failed.length > 0) {
        this.#tell('bulk.deleted', left.length - failed.length, failed)
        this.reload()
      }
    }
    ends.add(end)
    const close = this.app.toast(t('bulk.deleted', { n: rows.length }), { ms: undoFor, gone: end, action: { label: t('ui.undo'), run: () => {
      ends.delete(end)
      for (const l of rows) ending.delete(l.code)
      this.reload()
      this.app.announce(t('bulk.undone', { n: rows.length }))
    } } })
  }

  /** @param {string} key @param {number} n @param {{link: Link, err: unknown}[]} failed @param {() => void} [undo] */
  #tell(key, n, failed, undo) {
    if (n > 0) this.app.toast(t(key, { n }), { kind: 'good', ms: undo ? undoFor : 4000, action: undo && { label: t('ui.undo'), run: undo } })
    if (failed.length > 0) {
      const { link, err } = failed[0]
      this.app.toast(t('bulk.failed', { n: failed.length, code: link.code, why: /** @type {Error} */ (err).message }), { kind: 'bad', ms: 12000 })
    }
  }

  /** Does it to all, a few at once. @param {Link[]} rows @param {(l: Link) => Promise<void>} act @param {boolean} [show]
   * @returns {Promise<{link: Link, err: unknown}[]>} those that failed */
  async #go(rows, act, show = rows.length > 1) {
    const stop = new AbortController()
    const progress = { done: 0, of: rows.length, stop }
    if (show) this.progress = progress
    /** @type {{link: Link, err: unknown}[]} */
    const failed = []
    const queue = rows.slice()
    let drawn = 0
    const work = async () => {
      for (let l = queue.shift(); l && !stop.signal.aborted; l = queue.shift()) {
        try {
          await act(l)
        } catch (err) {
          if (err instanceof Problem && err.code === 'rate_limited') {
            queue.unshift(l)
            await new Promise((go) => setTimeout(go, 1000 * Math.max(1, err.retryAfter)))
            continue
          }
          failed.push({ link: l, err })
        }
        progress.done++
        if (show && Date.now() - drawn > 100) {
          drawn = Date.now()
          this.changed()
        }
      }
    }
    if (show) this.changed()
    await Promise.all(Array.from({ length: atOnce }, work))
    if (show) {
      this.progress = null
      this.changed()
    }
    return failed
  }
}

/** Ends at once what waits for its end. */
async function finish() {
  await Promise.all([...ends].map((end) => end()))
}
