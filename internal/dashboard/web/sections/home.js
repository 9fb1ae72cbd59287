// Home: paste, Enter, copied. Under it the newest links, and what happens today.

import { bare, copy, copyButton, empty, explain, html, icon, menu, nothing, render, skeleton, sparkline, state, trouble } from '../ui.js'
import { Away, Problem } from '../api.js'
import { locale } from '../texts.js'

/** @typedef {import('../app.js').App} App
 * @typedef {import('../ui.js').Link} Link */

const shown = 8 // of the newest links

/** @param {App} app @param {HTMLElement} root */
export default async function open(app, root) {
  const { api, t, format } = app
  const read = app.can('read')
  const signal = app.signal
  let typed = app.drafts.get('home') ?? ''
  let busy = false
  /** @type {string | null} */
  let error = null
  /** @type {{link: Link, copied: boolean} | null} */
  let made = null

  /** Each part is undefined until it is there, or the error instead.
   * @type {{links?: Link[] | Error, hours?: any, top?: any, misses?: any}} */
  const parts = {}
  if (!read) parts.links = app.drafts.get('home.made') ?? []

  /** @param {SubmitEvent} e */
  async function submit(e) {
    e.preventDefault()
    const input = /** @type {HTMLInputElement} */ (root.querySelector('#url'))
    const url = target(input.value)
    if (busy) return
    if (url === '') return wrong(t('home.empty'))
    busy = true
    error = null
    draw()
    const answer = api.create({ url, ...app.settings.defaults })
    // The browser lets a page copy only while it handles the key press: so the promise is handed over now.
    const copied = copy(answer.then((link) => link.short_url)).catch(() => false)
    try {
      const link = await answer
      made = { link, copied: await copied }
      if (target(input.value) === url) { // and not the next one already
        input.value = typed = ''
        app.drafts.drop('home')
      }
      if (Array.isArray(parts.links)) parts.links = [link, ...parts.links].slice(0, shown)
      if (!read) app.drafts.set('home.made', parts.links)
      app.announce(`${t(made.copied ? 'home.copied' : 'home.ready')} ${link.short_url}`)
    } catch (err) {
      made = null
      wrong(explain(err))
    } finally {
      busy = false
      draw()
    }

    function wrong(/** @type {string} */ why) {
      error = why
      draw()
      input.focus()
    }
  }

  /** @param {Event} e */
  function type(e) {
    typed = /** @type {HTMLInputElement} */ (e.currentTarget).value
    app.drafts.set('home', typed)
    if (error) {
      error = null
      draw()
    }
  }

  function draw() {
    render(html`
      <h1 class="sr-only">${t('nav.home')}</h1>
      ${app.can('create') ? html`
        <form class="card quick" novalidate @submit=${submit}>
          <label for="url">${t('home.url')}</label>
          <div class="quick-line">
            <input id="url" type="url" inputmode="url" autocomplete="off" autocapitalize="off" spellcheck="false" autofocus maxlength="2048"
              placeholder=${t('home.placeholder')} .defaultValue=${typed} aria-describedby="url-about" aria-invalid=${error ? 'true' : nothing} @input=${type}>
            <button class="button button-primary" ?disabled=${busy}>${busy ? t('home.busy') : t('home.do')}</button>
          </div>
          <p class="field-about" id="url-about" aria-live="polite">${error ? html`<span class="error">${error}</span>` : html`<a href="/dashboard/new" @click=${further}>${t('home.options')}</a>`}</p>
          ${made ? result(made) : nothing}
        </form>` : nothing}
      <div class="home-columns">
        <section class="card home-newest">
          <div class="spread card-head"><h2>${t('home.newest')}</h2>${read ? html`<a href="/dashboard/links">${t('home.all')}</a>` : nothing}</div>
          ${newest()}
        </section>
        ${read && !(parts.hours instanceof Problem && parts.hours.code === 'clicks_off') ? html`<div class="stack">${today()}${top()}${misses()}</div>` : nothing}
      </div>`, root)
  }

  /** What is typed goes along to the long form. */
  function further() {
    if (typed) app.drafts.set('new', { ...app.drafts.get('new'), url: typed })
  }

  /** @param {{link: Link, copied: boolean}} m */
  const result = ({ link, copied }) => html`
    <div class="made">
      <div class="made-main">
        <span class="state state-good">${icon('check')}${copied ? t('ui.copied') : t('home.made')}</span>
        <a class="made-url" href=${link.short_url} target="_blank" rel="noopener">${bare(link.short_url)}</a>
        <p class="muted small ellipsis" title=${link.url}>${bare(link.url)}</p>
      </div>
      <div class="row">
        ${copyButton(link.short_url, t('link.copy'))}
        <button type="button" class="icon-button" title=${t('link.qr')} aria-label=${t('link.qr')} @click=${() => qr(link)}>${icon('qr')}</button>
        <a class="icon-button" href=${link.short_url} target="_blank" rel="noopener" title=${t('link.open')} aria-label=${t('link.open')}>${icon('open')}</a>
        ${read ? html`<a class="icon-button" href="/dashboard/links/${link.code}" title=${t('link.numbers')} aria-label=${t('link.numbers')}>${icon('chart')}</a>` : nothing}
        ${app.can('manage') ? html`<a class="icon-button" href="/dashboard/links/${link.code}/edit" title=${t('link.edit')} aria-label=${t('link.edit')}>${icon('edit')}</a>` : nothing}
      </div>
    </div>`

  /** @param {Link} link */
  async function qr(link) {
    const { showQR } = await import('../ui/qr.js')
    showQR(link)
  }

  function newest() {
    const links = parts.links
    if (links === undefined) return skeleton(6)
    if (!Array.isArray(links)) return trouble(links, load)
    if (links.length === 0) return read ? empty({ icon: 'links', title: t('home.none'), text: t('home.none_text') }) : html`<p class="muted">${t('home.write_only')}</p>`
    return html`<ul class="lines">
      ${links.map((l) => html`
        <li class="line">
          <div class="line-main">
            <div class="line-title"><a class="ellipsis" href=${read ? `/dashboard/links/${l.code}` : l.short_url}>${l.code}</a>${state(l)}</div>
            <p class="muted small ellipsis" title=${l.url ?? ''}>${l.clicks === undefined ? nothing : html`<span class="line-under">${t('home.clicks', { n: l.clicks })} · </span>`}${l.title || bare(l.url ?? '')}</p>
          </div>
          <div class="line-side muted small">
            ${l.clicks === undefined ? nothing : html`<span class="line-clicks">${t('home.clicks', { n: l.clicks })}</span>`}
            ${l.created_at ? html`<span class="line-age">${format.ago(l.created_at)}</span>` : nothing}
          </div>
          ${copyButton(l.short_url, `${t('link.copy')}: ${l.code}`)}
          ${menu(`more-${l.code}`, {
            label: t('link.more', { code: l.code }),
            items: () => [
              { label: t('link.qr'), icon: 'qr', run: () => qr(l) },
              read && { label: t('link.numbers'), icon: 'chart', href: `/dashboard/links/${l.code}` },
              app.can('manage') && { label: t('link.edit'), icon: 'edit', href: `/dashboard/links/${l.code}/edit` },
            ],
          })}
        </li>`)}
    </ul>
    ${read ? nothing : html`<p class="muted small">${t('home.write_only')}</p>`}`
  }

  function today() {
    const h = parts.hours
    return html`
      <section class="card">
        <h2 class="card-head">${t('home.today')}</h2>
        ${h === undefined ? skeleton(2) : h instanceof Error ? trouble(h, load) : html`
          <div class="spread"><span class="figure">${format.n(h.today)}</span>${sparkline(h.hours, t('home.hours'))}</div>
          <p class="muted small">${t('home.yesterday', { n: h.byNow, whole: h.yesterday })}</p>`}
      </section>`
  }

  function top() {
    const links = parts.top
    return html`
      <section class="card">
        <div class="spread card-head"><h2>${t('home.top')}</h2><span class="muted small">${t('home.week')}</span></div>
        ${links === undefined ? skeleton(4) : links instanceof Error ? trouble(links, load) : links.length === 0 ? html`<p class="muted">${t('home.top_none')}</p>` : ranks(links, true)}
      </section>`
  }

  function misses() {
    const codes = parts.misses
    if (!app.can('admin')) return nothing
    return html`
      <section class="card">
        <div class="spread card-head"><h2>${t('home.misses')}</h2><span class="muted small">${t('home.week')}</span></div>
        ${codes === undefined ? skeleton(2) : codes instanceof Error ? trouble(codes, load) : codes.length === 0 ? html`<p class="muted">${t('home.misses_none')}</p>` : ranks(codes, false)}
      </section>`
  }

  /** @param {{code: string, clicks: number}[]} rows @param {boolean} linked */
  const ranks = (rows, linked) => html`<ol class="ranks">
    ${rows.map((r) => html`<li><span class="ellipsis mono">${linked ? html`<a href="/dashboard/links/${r.code}">${r.code}</a>` : r.code}</span><span class="ranks-n">${format.n(r.clicks)}</span></li>`)}
  </ol>`

  let loaded = 0
  async function load() {
    if (!read) return
    loaded = Date.now()
    const zone = locale().timeZone
    const day = (/** @type {number} */ before, timeZone = zone) => new Intl.DateTimeFormat('en-CA', { timeZone }).format(Date.now() - before * 86400e3)
    const get = async (/** @type {keyof typeof parts} */ part, /** @type {string} */ path, /** @type {import('../api.js').Query} */ query, /** @type {(data: any) => any} */ take) => {
      try {
        parts[part] = take((await api.call('GET', path, { query, signal })).data)
      } catch (err) {
        if (signal.aborted) return
        // What is on the screen is worth more than the news that it cannot be renewed: the banner says that.
        if (!(err instanceof Away) || parts[part] === undefined) parts[part] = /** @type {Error} */ (err)
      }
      draw()
    }
    await Promise.all([
      get('links', '/links', { limit: shown, with: 'clicks' }, (d) => d.links).then(() => {
        // Where no clicks are counted, the list has none.
        const l = parts.links
        return l instanceof Problem && l.code === 'clicks_off' ? get('links', '/links', { limit: shown }, (d) => d.links) : undefined
      }),
      get('hours', '/clicks', { from: day(1), tz: zone, unit: 'hour' }, (d) => hours(d.rows, day(1), day(0), zone)),
      // These are counted by days of UTC: those of another zone would take in a day more.
      get('top', '/clicks/top', { from: day(6, 'UTC'), limit: 5 }, (d) => d.links),
      app.can('admin') && get('misses', '/clicks/misses', { from: day(6, 'UTC'), limit: 5 }, (d) => d.misses),
    ])
  }

  // Somebody who followed a link in another tab and comes back sees the click.
  const seen = () => document.visibilityState === 'visible' && Date.now() - loaded > 5000 && load()
  document.addEventListener('visibilitychange', seen)
  signal.addEventListener('abort', () => document.removeEventListener('visibilitychange', seen))

  draw()
  load()
  return { back: load }
}

/** What somebody typed, as a target: most leave the scheme out. @param {string} typed */
export function target(typed) {
  const url = typed.trim()
  return url === '' || /^[a-z][a-z0-9+.-]*:/i.test(url) && !/^[^/]+:\d/.test(url) ? url : `https://${url}`
}

/** @param {{start: string, clicks: number}[]} rows by the hour @param {string} yesterday @param {string} today @param {string} zone */
function hours(rows, yesterday, today, zone) {
  const [now, minutes] = new Intl.DateTimeFormat('en-GB', { timeZone: zone, hour: '2-digit', minute: '2-digit', hourCycle: 'h23' }).format(new Date()).split(':').map(Number)
  const sum = { today: 0, yesterday: 0, byNow: 0, hours: new Array(24 + now + 1).fill(0) }
  for (const { start, clicks } of rows) {
    const hour = Number(start.slice(11, 13))
    if (start.startsWith(today)) {
      sum.today += clicks
      sum.hours[24 + hour] += clicks
    } else if (start.startsWith(yesterday)) {
      sum.yesterday += clicks
      sum.hours[hour] += clicks
      // Of the hour that this one is compared with, as much as of this one is over.
      if (hour < now) sum.byNow += clicks
      else if (hour === now) sum.byNow += Math.round((clicks * minutes) / 60)
    }
  }
  return sum
}
