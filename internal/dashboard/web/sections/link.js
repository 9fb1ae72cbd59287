// A link's page: what it is, its clicks, its QR code, and how to be rid of it or of them.

import { Problem } from '../api.js'
import { bare, chip, copy, empty, explain, field, html, icon, nothing, render, skeleton, state, toast, trouble } from '../ui.js'
import { openClicks } from './clicks.js'
// Named here, all of them are fetched at once, and not one after the other as each import is met.
import '../ui/chart.js'
import '../ui/map.js'
import '../ui/range.js'
import '../vendor/uplot.js'
import './live.js'

/** @typedef {import('../app.js').App} App
 * @typedef {import('../app.js').Route} Route
 * @typedef {import('../ui.js').Link & {created_at?: string, owner?: string, tags?: string[], max_visits?: number, visits_left?: number, status?: number, forward_query?: boolean}} Link */

/** @param {App} app @param {HTMLElement} root @param {Route} route */
export default async function open(app, root, route) {
  const { api, t, format } = app
  let code = ''
  /** @type {Link | null} */
  let link = null
  /** @type {unknown} */
  let failed
  /** @type {ReturnType<typeof openClicks> | undefined} */
  let clicks
  const clicksRoot = document.createElement('div')

  const path = () => `/links/${encodeURIComponent(code)}`

  /** @param {Route} next */
  async function start(next) {
    route = next
    code = next.params.code
    link = null
    failed = undefined
    clicks?.close()
    clicks = undefined
    app.title(code)
    // The clicks do not wait for the link: neither needs the other.
    clicks = openClicks(app, clicksRoot, next.query, (query) => app.go(query.size > 0 ? `${path()}?${query}` : path()), {
      path: `${path()}/clicks`, params: {}, live: { code }, name: code, links: false,
    })
    await read()
    if (code !== next.params.code || link || isGone(failed)) return
    clicks?.close()
    clicks = undefined
  }

  async function read() {
    const asked = code
    try {
      const { data } = await api.call('GET', path(), { signal: app.signal })
      if (code !== asked) return
      link = data
      failed = undefined
      app.title(data.title || code)
      clicks?.since(data.created_at?.slice(0, 10))
    } catch (err) {
      if (code !== asked || app.signal.aborted) return
      failed = err
    }
    draw()
  }

  function draw() {
    if (!link && !isGone(failed)) {
      render(!failed ? skeleton(6) : html`
        <div class="section-head"><h1>${code}</h1></div>
        ${failed instanceof Problem && (failed.status === 404 || failed.status === 403)
          ? empty({ icon: failed.status === 403 ? 'key' : 'search', title: explain(failed), action: html`<a class="button" href="/dashboard/links">${t('nav.links')}</a>` })
          : trouble(failed, () => start(route))}`, root)
      return
    }
    render(html`
      ${link ? head(link) : html`<div class="section-head"><h1>${code}</h1></div><div class="note">${icon('info')}<p>${explain(failed)}</p></div>`}
      ${clicksRoot}
      ${app.can('manage') ? danger() : nothing}`, root)
  }

  /** @param {Link} l */
  const head = (l) => html`
    <header class="link-head">
      <div class="link-what">
        <h1>${l.title || l.code}</h1>
        <p class="link-short"><a href=${l.short_url} target="_blank" rel="noopener">${bare(l.short_url)}</a>${state(l)}</p>
        <p class="muted link-target">${icon('right')}<a class="ellipsis" href=${l.url ?? nothing} title=${l.url ?? ''} target="_blank" rel="noopener noreferrer">${bare(l.url ?? '')}</a></p>
        <p class="link-facts muted small">
          ${(l.tags ?? []).map((tag) => chip(tag, { href: `/dashboard/links?${new URLSearchParams({ tag })}` }))}
          ${l.created_at ? html`<span title=${format.dateTime(l.created_at)}>${t('one.made', { ago: format.ago(l.created_at) })}${l.owner ? ` · ${l.owner}` : ''}</span>` : nothing}
          ${l.expires_at ? html`<span>${icon('clock')}${t(new Date(l.expires_at) > new Date() ? 'one.expires' : 'one.expired', { when: format.dateTime(l.expires_at) })}</span>` : nothing}
          ${l.max_visits ? html`<span>${t('one.visits', { n: l.visits_left ?? 0, most: l.max_visits })}</span>` : nothing}
        </p>
      </div>
      <div class="link-do">
        <button type="button" class="button button-primary" @click=${copyIt}>${icon('copy')}${t('ui.copy')}</button>
        <button type="button" class="button" @click=${qr}>${icon('qr')}${t('link.qr')}</button>
        ${app.can('manage') ? html`<a class="button" href="/dashboard${path()}/edit">${icon('edit')}${t('link.edit')}</a>` : nothing}
      </div>
    </header>`

  const danger = () => html`
    <section class="card danger" aria-label=${t('one.danger')}>
      <h2>${t('one.danger')}</h2>
      <div class="danger-line"><div><h3>${t('one.forget')}</h3><p class="muted small">${t('one.forget_text')}</p></div>
        <button type="button" class="button danger-button" @click=${forget}>${t('one.forget')}</button></div>
      ${link ? html`<div class="danger-line"><div><h3>${t('one.delete')}</h3><p class="muted small">${t('one.delete_text')}</p></div>
        <button type="button" class="button danger-button" @click=${remove}>${t('one.delete')}</button></div>` : nothing}
    </section>`

  async function copyIt() {
    const done = link ? await copy(link.short_url) : false
    toast(t(done ? 'ui.copied' : 'ui.not_copied'), { kind: done ? 'good' : 'bad' })
  }

  async function qr() {
    if (!link) return
    const { showQR } = await import('../ui/qr.js')
    showQR(link)
  }

  async function forget() {
    if (await typeCode(t('one.forget'), t('one.forget_text'), () => api.call('DELETE', `${path()}/clicks`))) {
      toast(t('one.forgotten'), { kind: 'good' })
      clicks?.refresh()
    }
  }

  async function remove() {
    if (await typeCode(t('one.delete'), t('one.delete_text'), () => api.call('DELETE', path()))) {
      toast(t('one.deleted', { code }), { kind: 'good' })
      app.go('/links')
    }
  }

  /** Asks for the code, so that nobody does it to another link than they mean, and then does it.
   * @param {string} title @param {string} text @param {() => Promise<unknown>} act @returns {Promise<boolean>} whether it is done */
  async function typeCode(title, text, act) {
    let typed = '', busy = false
    /** @type {string | null} */
    let error = null
    let again = () => {}
    return true === await app.dialog((/** @type {(v?: boolean) => void} */ close) => html`
      <form class="stack" @submit=${async (/** @type {Event} */ e) => {
        e.preventDefault()
        if (busy) return
        if (typed !== code) {
          error = t('one.type_wrong')
          return again()
        }
        busy = true
        again()
        try {
          await act()
          close(true)
        } catch (err) {
          error = explain(err)
          busy = false
          again()
        }
      }}>
        <p>${text}</p>
        ${field({
          id: 'typed', label: t('one.type', { code }), error,
          control: html`<input id="typed" class="mono" autocomplete="off" autocapitalize="off" spellcheck="false" autofocus aria-describedby="typed-about" aria-invalid=${error ? 'true' : 'false'}
            @input=${(/** @type {Event} */ e) => { typed = /** @type {HTMLInputElement} */ (e.target).value.trim(); error = null; again() }}>`,
        })}
        <div class="actions"><button type="button" class="button" @click=${() => close()}>${t('ui.cancel')}</button>
          <button class="button button-danger" ?disabled=${busy}>${title}</button></div>
      </form>`, { title, on: (draw_) => (again = draw_) })
  }

  draw()
  const started = start(route)
  // The head is drawn with the first answer. Until then the page would jump.
  await Promise.race([started, new Promise((go) => setTimeout(go, 300))])
  return {
    /** @param {Route} next */
    update(next) {
      if (next.params.code !== code) {
        start(next)
        return
      }
      route = next
      clicks?.update(next.query)
    },
    back() {
      read()
      if (clicks) clicks.refresh()
      else start(route)
    },
    close: () => clicks?.close(),
    keys: {
      c: () => (link ? copyIt() : false),
      q: () => (link ? qr() : false),
      e: () => (link && app.can('manage') ? app.go(`${path()}/edit`) : false),
    },
  }
}

/** @param {unknown} err */
const isGone = (err) => err instanceof Problem && err.status === 410
