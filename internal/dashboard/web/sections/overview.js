// The clicks of many links: those of a key name, of a tag, or of everyone. Under them the links that were clicked
// most, and the codes that were asked for and are not there.

import { html, icon, nothing, render, skeleton, svg, trouble } from '../ui.js'
import { ask, readRange, withChanges } from '../ui/range.js'
import { numbersMenu, openClicks } from './clicks.js'
// Named here, all of them are fetched at once, and not one after the other as each import is met.
import '../ui/chart.js'
import '../ui/map.js'
import '../vendor/uplot.js'
import './live.js'

/** @typedef {import('../app.js').App} App
 * @typedef {import('../app.js').Route} Route
 * @typedef {{code: string, clicks: number}} Row */

const shown = 10

/** @param {App} app @param {HTMLElement} root @param {Route} route */
export default async function open(app, root, { query }) {
  const { api, t, format } = app
  /** Undefined until they are there, or the error instead. @type {{top?: Row[] | Error, misses?: Row[] | Error}} */
  const lists = {}
  let loading = new AbortController()
  /** Names of keys, for those who may see what others made. @type {string[]} */
  let owners = []
  const clicksRoot = document.createElement('div')

  const go = (/** @type {URLSearchParams} */ q) => app.go(q.size > 0 ? `/overview?${q}` : '/overview')

  const params = () => {
    /** @type {Record<string, string>} */
    const p = {}
    for (const name of ['owner', 'tag']) {
      const value = query.get(name)
      if (value) p[name] = value
    }
    return p
  }
  const scope = () => ({ path: '/clicks', params: params(), live: params(), name: 'clicks', links: true })

  /** The question about a list of links or codes: it takes no filters. @param {'top' | 'misses'} which @param {number} limit */
  const question = (which, limit) => {
    // Links are counted by days in UTC: a day of another zone would have the clicks of two.
    const q = ask({ ...readRange(query), where: new Map(), tz: 'UTC' }, { extra: { limit: String(limit) } })
    if (which === 'misses') q.delete('bots')
    else for (const [name, value] of Object.entries(params())) q.set(name, value)
    return `/clicks/${which}?${q}`
  }

  async function load() {
    loading.abort()
    loading = new AbortController()
    const { signal } = loading
    const get = async (/** @type {'top' | 'misses'} */ which) => {
      try {
        const { data } = await api.call('GET', question(which, 100), { signal })
        lists[which] = data[which === 'top' ? 'links' : 'misses']
      } catch (err) {
        if (signal.aborted) return
        lists[which] = /** @type {Error} */ (err)
      }
      draw()
    }
    draw()
    await Promise.all([get('top'), app.can('admin') && get('misses')])
  }

  async function loadOwners() {
    if (!app.can('admin')) return
    try {
      const { data } = await api.call('GET', '/service', { signal: app.signal })
      owners = [...new Set(data.keys.map((/** @type {any} */ k) => k.name))]
    } catch {
      // The names can be typed into the address.
    }
    draw()
  }

  function draw() {
    const tag = query.get('tag') ?? ''
    const owner = query.get('owner') ?? ''
    const names = [...new Set([...owners, owner])].filter((n) => n !== '' && n !== '*' && n !== app.session.name).sort()
    render(html`
      <div class="section-head">
        <h1>${t('nav.overview')}</h1>
        <div class="overview-scope">
          ${app.can('admin') ? html`<label><span class="sr-only">${t('overview.owner')}</span>
            <select @change=${(/** @type {Event} */ e) => go(withChanges(query, { owner: /** @type {HTMLSelectElement} */ (e.target).value || null }))}>
              <option value="" .selected=${owner === ''}>${t('overview.mine', { name: app.session.name })}</option>
              <option value="*" .selected=${owner === '*'}>${t('overview.everyone')}</option>
              ${names.map((n) => html`<option value=${n} .selected=${owner === n}>${n}</option>`)}
            </select></label>` : nothing}
          <form role="search" @submit=${pickTag}><label class="sr-only" for="overview-tag">${t('overview.tag')}</label>
            <span class="with-icon">${icon('tag')}<input id="overview-tag" name="tag" maxlength="50" autocomplete="off" placeholder=${t('overview.tag')} .value=${tag}
              @change=${(/** @type {Event} */ e) => /** @type {HTMLInputElement} */ (e.target).form?.requestSubmit()}></span>
            ${tag ? html`<button type="button" class="icon-button" aria-label=${t('overview.all_tags')} title=${t('overview.all_tags')} @click=${() => go(withChanges(query, { tag: null }))}>${icon('close')}</button>` : nothing}</form>
        </div>
      </div>
      ${clicksRoot}
      <div class="panels panels-two">${list('top')}${app.can('admin') ? list('misses') : nothing}</div>`, root)
  }

  /** @param {SubmitEvent} e */
  function pickTag(e) {
    e.preventDefault()
    const tag = String(new FormData(/** @type {HTMLFormElement} */ (e.currentTarget)).get('tag')).trim()
    if (tag !== (query.get('tag') ?? '')) go(withChanges(query, { tag: tag || null }))
  }

  /** @param {'top' | 'misses'} which */
  function list(which) {
    const rows = lists[which]
    const title = t(`overview.${which}`)
    const { where, tz } = readRange(query)
    const filtered = which === 'top' && where.size > 0
    return html`<section class="card panel" aria-label=${title}>
      <div class="panel-head"><h2>${title}</h2>
        ${numbersMenu(which, title, () => question(which, 1000), `${which}.csv`)}</div>
      <p class="muted small panel-about">${t(filtered ? 'overview.unfiltered' : `overview.${which}_text`)}${tz === 'UTC' ? nothing : html` ${t('overview.utc')}`}</p>
      ${rows === undefined ? skeleton(5) : rows instanceof Error ? trouble(rows, load) : rows.length === 0 ? html`<p class="muted small panel-none">${t(`overview.${which}_none`)}</p>` : table(which, rows)}
    </section>`
  }

  /** @param {'top' | 'misses'} which @param {Row[]} rows */
  function table(which, rows) {
    const most = Math.max(1, ...rows.map((r) => r.clicks))
    return html`<div class="panel-rows"><table>
      <thead class="sr-only"><tr><th scope="col">${t('overview.code')}</th><th scope="col">${t('clicks.clicks')}</th></tr></thead>
      <tbody>${rows.slice(0, shown).map((r) => html`<tr>
        <th scope="row">${which === 'top'
          ? html`<a class="panel-row mono" href="/dashboard/links/${encodeURIComponent(r.code)}${sameTime()}"><span class="ellipsis">${r.code}</span></a>`
          : html`<span class="panel-row panel-row-plain mono" title=${r.code}><span class="ellipsis">${r.code}</span></span>`}
          <svg class="bar" aria-hidden="true">${svg`<rect width="${((r.clicks / most) * 100).toFixed(2)}%" height="100%" rx="4"></rect>`}</svg></th>
        <td class="number">${format.n(r.clicks)}</td></tr>`)}</tbody></table></div>`
  }

  /** A link opens with the time that one looks at. */
  function sameTime() {
    const q = new URLSearchParams()
    for (const name of ['range', 'from', 'to', 'tz', 'unit', 'bots', 'compare']) {
      const value = query.get(name)
      if (value !== null) q.set(name, value)
    }
    return q.size > 0 ? `?${q}` : ''
  }

  draw()
  const clicks = openClicks(app, clicksRoot, query, go, scope())
  load()
  loadOwners()
  return {
    /** @param {Route} next */
    update(next) {
      query = next.query
      clicks.update(query, scope())
      load()
    },
    back() {
      clicks.refresh()
      load()
    },
    close() {
      loading.abort()
      clicks.close()
    },
  }
}
