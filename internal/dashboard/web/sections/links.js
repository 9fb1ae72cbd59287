// Links: search as one types, filters that stand in the address, as many rows as there are. Only the rows in
// sight are elements; pages are fetched as one scrolls. Several can be selected and changed together: bulk.js.

import { locale } from '../texts.js'
import { bare, copy, copyButton, empty, explain, focus, html, icon, menu, nothing, render, save, skeleton, sparkline, state, trouble } from '../ui.js'
import { Bulk } from '../ui/bulk.js'
import { Feed } from '../ui/feed.js'
import { fromWall, toWall } from '../ui/when.js'

/** @typedef {import('../app.js').App} App
 * @typedef {import('../ui.js').Link} Link
 * @typedef {{q: string, tag: string, state: string, owner: string, from: string, to: string, sort: string}} Filters */

const spare = 8 // rows above and below what is in sight
const mostPixels = 15e6 // browsers end elements that are higher

// What was there when one left, so that coming back shows it at once and where it was.
/** @type {{key: string, feed: Feed} | null} */
let kept = null

/** @param {App} app @param {HTMLElement} root @param {import('../app.js').Route} route */
export default async function open(app, root, route) {
  const { api, t, format } = app
  const signal = app.signal
  const narrow = matchMedia('(max-width: 860px)')
  const wide = matchMedia('(min-width: 1200px)')

  /** @type {Filters} */
  let filters = read(route.query)
  let unfolded = folded(filters) > 0
  /** @type {Feed} */
  let feed
  /** The list that is being fetched while the one before is still shown. @type {Feed | null} */
  let coming = null
  let slow = false // it takes longer than one takes for an answer
  let slowly = 0
  let typing = 0
  let typed = 0
  let current = -1 // the row that the keyboard is at
  let last = -1 // the row that was selected last
  const bulk = new Bulk(app, drawBar, () => start(true))

  const body = document.createElement('div')
  const list = document.createElement('div')
  list.className = 'rows'
  list.setAttribute('role', 'rowgroup')
  const bar = document.createElement('div')
  bar.className = 'bulk-place'
  /** @type {Map<number, HTMLElement>} */
  const drawn = new Map()
  /** Those of them whose link is not there yet. @type {WeakSet<HTMLElement>} */
  const waits = new WeakSet()
  /** The clicks of the last 30 days of a link, for its sparkline; null while they are asked for.
   * @type {Map<string, number[] | null>} */
  const lines = new Map()

  const height = () => (narrow.matches ? 88 : 64)
  const count = () => Math.min(feed.length, Math.floor(mostPixels / height()))
  /** A row, unless it is being deleted. @param {number} i */
  const row = (i) => feed.rows[i]

  /** @param {boolean} [again] the same list, which may have changed */
  function start(again = false) {
    const key = address(filters)
    if (!again) app.replace(`/links${key}`)
    coming?.stop()
    const before = feed
    const next = new Feed(ask(filters), () => {
      if (coming !== next) return next === feed ? changed() : undefined
      // What is shown stays until as much of the new list is there, or it is known to fail.
      const enough = again ? Math.min(before?.rows.length ?? 0, 1000) : 1
      if (next.rows.length < enough && !next.done && !next.error) return
      coming = null
      clearTimeout(slowly)
      slow = false
      if (next.error && again && before.rows.length > 0) return drawHead()
      feed = next
      before?.stop()
      kept = { key, feed }
      if (!again) {
        current = last = -1
        bulk.clear()
        if (before && scrollY > top()) scrollTo(0, top())
      }
      bulk.hide(feed)
      changed(true)
      if (!again) app.announce(said())
    })
    coming = next
    clearTimeout(slowly)
    slowly = again ? 0 : setTimeout(() => {
      slow = true
      drawHead()
    }, 400)
    next.want(again ? Math.max(100, Math.min(before.rows.length, 1000)) : 100)
    if (before) drawHead()
  }

  /** @param {boolean} [all] other rows, and not only more of them */
  function changed(all = false) {
    if (signal.aborted) return
    bulk.hide(feed)
    drawHead()
    drawRows(all)
  }

  /** @param {Partial<Filters>} change */
  function filter(change) {
    Object.assign(filters, change)
    drawHead()
    start()
  }

  /** @param {Event} e */
  function search(e) {
    const q = /** @type {HTMLInputElement} */ (e.currentTarget).value
    clearTimeout(typing)
    // The first key, and what is pasted, is searched for at once; of those that follow quickly only the last.
    const wait = Date.now() - typed > 150 ? 0 : 60
    typed = Date.now()
    if (wait === 0) filter({ q })
    else typing = setTimeout(() => filter({ q }), wait)
  }

  const top = () => list.getBoundingClientRect().top + scrollY - (narrow.matches ? 0 : 48)

  function said() {
    if (slow) return t('links.searching')
    if (feed.error && feed.rows.length === 0) return ''
    if (feed.newestOnly !== undefined && !feed.done) return t('links.some', { n: feed.rows.length })
    const n = feed.done ? feed.rows.length : feed.total
    return n === undefined ? t('links.some', { n: feed.rows.length }) : t(feed.estimate && !feed.done ? 'links.about' : 'links.count', { n })
  }

  /** @param {keyof Filters} name @param {string} label @param {import('../ui.js').Piece} control */
  const labelled = (name, label, control) => html`<label class="filter"><span class="small muted">${label}</span>${control}</label>`
  /** @param {keyof Filters} name */
  const pick = (name) => (/** @type {Event} */ e) => filter({ [name]: /** @type {HTMLInputElement} */ (e.currentTarget).value.trim() })

  function drawHead() {
    if (signal.aborted) return
    const any = folded(filters)
    render(html`
      <div class="section-head">
        <h1>${t('nav.links')} <span class="links-count">${feed || slow ? said() : ''}</span></h1>
        ${menu('links-more', { label: t('links.move'), text: html`${icon('more')}<span>${t('links.move')}</span>`, items: () => [
          app.can('manage') && { label: t('links.import'), icon: 'upload', run: importLinks },
          { label: t('links.export_csv'), icon: 'download', run: () => exportLinks('text/csv') },
          { label: t('links.export_ndjson'), icon: 'download', run: () => exportLinks('application/x-ndjson') },
        ] })}
      </div>
      <search class="links-search">
        <div class="search-box">${icon('search')}
          <input type="search" id="links-q" maxlength="200" autocomplete="off" autocapitalize="off" spellcheck="false" aria-label=${t('links.search')} placeholder=${t('links.search')}
            .value=${filters.q} @input=${search} @keydown=${leave}></div>
        <select class="links-sort" aria-label=${t('links.sort')} @change=${pick('sort')}>
          <option value="" ?selected=${filters.sort === ''}>${t('links.newest')}</option>
          <option value="oldest" ?selected=${filters.sort === 'oldest'}>${t('links.oldest')}</option>
        </select>
        <button type="button" class="button" aria-expanded=${String(unfolded)} aria-controls="links-filters" @click=${() => { unfolded = !unfolded; drawHead() }}>
          ${icon('filter')}<span>${t('links.filters')}</span>${any ? html`<span class="badge">${any}</span>` : nothing}</button>
      </search>
      <div class="filters" id="links-filters" ?hidden=${!unfolded}>
        ${labelled('state', t('links.state'), html`<select @change=${pick('state')}>
          ${['', 'active', 'disabled', 'gone'].map((s) => html`<option value=${s} ?selected=${filters.state === s}>${t(`links.state_${s || 'all'}`)}</option>`)}</select>`)}
        ${labelled('tag', t('links.tag'), html`<input maxlength="50" autocomplete="off" .value=${filters.tag} @change=${pick('tag')}>`)}
        ${app.can('admin') ? labelled('owner', t('links.owner'), html`<input maxlength="64" autocomplete="off" placeholder=${app.session.name} title=${t('links.owner_hint')} .value=${filters.owner} @change=${pick('owner')}>`) : nothing}
        ${labelled('from', t('links.from'), html`<input type="date" .value=${filters.from} @change=${pick('from')}>`)}
        ${labelled('to', t('links.to'), html`<input type="date" .value=${filters.to} @change=${pick('to')}>`)}
        <button type="button" class="button button-plain" ?disabled=${!any} @click=${() => filter({ ...read(new URLSearchParams()), q: filters.q, sort: filters.sort })}>${t('links.reset')}</button>
      </div>
      ${feed?.incomplete ? html`<p class="note-line muted small">${icon('info')} ${t('links.incomplete')}</p>` : nothing}
      ${feed?.newestOnly !== undefined && (feed.rows.length > 0 || filters.q) ? html`<p class="note-line muted small">${icon('info')} ${t('links.newest_only', { n: feed.newestOnly })}</p>` : nothing}
      ${feed ? table() : skeleton(8)}`, body)
    const place = body.querySelector('.table')
    if (place && list.parentElement !== place) place.append(list)
  }

  function table() {
    if (feed.rows.length === 0 && feed.error) return trouble(feed.error, () => start())
    if (feed.rows.length === 0 && feed.done) return none()
    return html`
      <div class="card table ${feed.clicks ? '' : 'uncounted'}" role="table" aria-label=${t('nav.links')} aria-rowcount=${feed.done ? count() + 1 : feed.total !== undefined ? feed.total + 1 : -1} aria-busy=${String(coming !== null)}>
        <div class="table-head" role="rowgroup"><div class="link-row" role="row" aria-rowindex="1">
          <div role="columnheader" class="cell-check">${app.can('manage') ? html`<label class="hit"><input type="checkbox" aria-label=${t('links.select_all')} .checked=${bulk.size > 0 && bulk.size >= feed.rows.length}
            .indeterminate=${bulk.size > 0 && bulk.size < feed.rows.length} @change=${selectAll}></label>` : html`<span class="sr-only">${t('links.select')}</span>`}</div>
          <div role="columnheader" class="cell-main">${t('links.link')}</div>
          <div role="columnheader" class="cell-tags">${t('links.tags')}</div>
          <div role="columnheader" class="cell-line">${t('links.line')}</div>
          <div role="columnheader" class="cell-clicks">${t('links.clicks')}</div>
          <div role="columnheader" class="cell-made">${t('links.made')}</div>
          <div role="columnheader" class="cell-do"><span class="sr-only">${t('ui.more')}</span></div>
        </div></div>
        ${feed.error ? trouble(feed.error, () => feed.want(feed.rows.length + 300)) : nothing}
      </div>`
  }

  function none() {
    if (folded(filters) || filters.q) {
      return empty({ icon: 'search', title: t('links.none_found'), text: filters.q ? t('links.words') : t('links.none_filtered'),
        action: html`<button type="button" class="button" @click=${() => { filter(read(new URLSearchParams())); focus(body, '#links-q') }}>${t('links.clear')}</button>` })
    }
    return empty({ icon: 'links', title: t('home.none'), text: t('links.none_text'),
      action: app.can('create') ? html`<a class="button button-primary" href="/dashboard/new">${icon('plus')}${t('nav.new')}</a>` : nothing })
  }

  /** Which rows are in sight. */
  function inSight() {
    const h = height()
    const from = Math.floor(-list.getBoundingClientRect().top / h)
    return { from: Math.max(0, from - spare), to: Math.min(count(), from + Math.ceil(innerHeight / h) + spare), first: Math.max(0, from) }
  }

  /** @param {boolean} [all] also those that are drawn already */
  function drawRows(all = false) {
    if (!feed || !list.isConnected) return
    const h = height()
    const { from, to, first } = inSight()
    list.style.height = `${count() * h}px`
    for (const [i, el] of drawn) {
      // Where the focus is, it stays: whoever scrolls on with the wheel comes back to it.
      if ((i < from || i >= to) && (i >= count() || !el.contains(document.activeElement))) {
        el.remove()
        drawn.delete(i)
      }
    }
    /** @type {HTMLElement | null} */
    let after = null
    for (let i = to - 1; i >= from; i--) {
      let el = drawn.get(i)
      if (!el || all || (waits.has(el) && row(i))) {
        if (!el) {
          el = document.createElement('div')
          el.setAttribute('role', 'row')
          drawn.set(i, el)
          list.insertBefore(el, after)
        }
        drawRow(i, el, h)
      }
      after = el
    }
    if (to > feed.rows.length && !feed.done && !feed.error) feed.want(to + 60)
    clearTimeout(resting)
    resting = setTimeout(() => fetchLines(first, to - spare), 150)
  }

  /** @param {number} i @param {HTMLElement} el @param {number} [h] */
  function drawRow(i, el, h = height()) {
    const l = row(i)
    if (l) waits.delete(el)
    else waits.add(el)
    el.style.transform = `translateY(${i * h}px)`
    el.setAttribute('aria-rowindex', String(i + 2))
    el.className = `link-row ${i === current ? 'current' : ''} ${l && bulk.has(l.code) ? 'selected' : ''}`
    render(l ? cells(l, i) : html`<div role="cell" class="row-waits"><div class="skeleton"><div></div><div></div></div></div>`, el)
  }

  /** @param {Link} l @param {number} i */
  const cells = (l, i) => html`
    <div role="cell" class="cell-check">${app.can('manage') && !l.deleted ? html`<label class="hit"><input type="checkbox" aria-label=${t('links.select_one', { code: l.code })} .checked=${bulk.has(l.code)}
      @click=${(/** @type {MouseEvent} */ e) => select(i, e.shiftKey)}></label>` : nothing}</div>
    <div role="cell" class="cell-main">
      <div class="line-title"><a class="ellipsis row-link" href="/dashboard/links/${l.code}" title=${l.code}>${l.code}</a>${l.title ? html`<span class="row-title ellipsis" title=${l.title}>${l.title}</span>` : nothing}${state(l)}</div>
      <p class="muted small ellipsis" title=${l.url ?? ''}>${l.url ? bare(l.url) : t('links.forgotten')}</p>
      <p class="row-under muted small ellipsis">${[l.clicks === undefined ? '' : t('home.clicks', { n: l.clicks }), l.tags?.join(', ')].filter(Boolean).join(' · ')}</p>
    </div>
    <div role="cell" class="cell-tags">${filters.owner === '*' ? html`<button type="button" class="chip chip-owner" @click=${() => filter({ owner: l.owner ?? 'default' })}>${l.owner ?? 'default'}</button>` : nothing}
      ${(l.tags ?? []).slice(0, 2).map((tag) => html`<button type="button" class="chip" title=${tag} @click=${() => { unfolded = true; filter({ tag }) }}><span>${tag}</span></button>`)}${(l.tags?.length ?? 0) > 2
        ? html`<span class="muted small" title=${l.tags?.slice(2).join(', ') ?? ''}>+${(l.tags?.length ?? 0) - 2}</span>` : nothing}</div>
    <div role="cell" class="cell-line">${lines.get(l.code) ? sparkline(/** @type {number[]} */ (lines.get(l.code)), t('links.line_of', { code: l.code })) : nothing}</div>
    <div role="cell" class="cell-clicks">${l.clicks === undefined ? nothing : format.n(l.clicks)}</div>
    <div role="cell" class="cell-made muted small">${l.created_at ? html`<time datetime=${l.created_at} title=${format.dateTime(l.created_at)}>${format.date(l.created_at)}</time>` : nothing}</div>
    <div role="cell" class="cell-do">
      ${copyButton(l.short_url, `${t('link.copy')}: ${l.code}`)}
      ${menu(`row-${i}`, { label: t('link.more', { code: l.code }), items: () => [
        { label: t('link.numbers'), icon: 'chart', href: `/dashboard/links/${l.code}` },
        !l.deleted && { label: t('link.qr'), icon: 'qr', run: () => qr(l) },
        !l.deleted && { label: t('link.open'), icon: 'open', run: () => window.open(l.short_url, '_blank', 'noopener') },
        app.can('manage') && !l.deleted && { label: t('link.edit'), icon: 'edit', href: `/dashboard/links/${l.code}/edit` },
        app.can('manage') && !l.deleted && { label: t(l.disabled ? 'bulk.enable' : 'bulk.disable'), icon: l.disabled ? 'play' : 'pause', run: () => bulk.change([l], { disabled: !l.disabled || null }) },
        app.can('manage') && !l.deleted && { label: t('link.delete'), icon: 'trash', danger: true, run: () => bulk.remove([l]) },
      ] })}
    </div>`

  /** @param {Link} l */
  async function qr(l) {
    const { showQR } = await import('../ui/qr.js')
    showQR(l)
  }

  function drawBar() {
    if (signal.aborted) return
    bulk.hide(feed)
    render(bulk.bar(feed), bar)
    drawHead()
    drawRows(true)
  }

  /** @param {number} i @param {boolean} through all from the one selected last */
  function select(i, through) {
    const l = row(i)
    if (!l || l.deleted || !app.can('manage')) return
    const on = !bulk.has(l.code)
    const [a, b] = through && last >= 0 ? [Math.min(i, last), Math.max(i, last)] : [i, i]
    bulk.set(feed.rows.slice(a, b + 1), on)
    last = i
  }

  /** @param {Event} e */
  function selectAll(e) {
    bulk.set(feed.rows, /** @type {HTMLInputElement} */ (e.currentTarget).checked)
  }

  /** Escape clears the search, then leaves it; Enter and the arrow go to the first row. @param {KeyboardEvent} e */
  function leave(e) {
    const input = /** @type {HTMLInputElement} */ (e.currentTarget)
    if (e.key === 'Escape') {
      e.preventDefault()
      if (input.value) {
        input.value = ''
        filter({ q: '' })
      } else input.blur()
    } else if ((e.key === 'ArrowDown' || e.key === 'Enter') && feed?.rows.length > 0) {
      e.preventDefault()
      go(0)
    }
  }

  /** Brings the keyboard to a row. @param {number} i */
  function go(i) {
    if (!feed || feed.rows.length === 0) return false
    i = Math.max(0, Math.min(feed.rows.length - 1, i))
    const before = current
    current = i
    const box = list.getBoundingClientRect().top + i * height()
    const above = narrow.matches ? 0 : 48
    if (box < above) scrollBy(0, box - above)
    else if (box + height() > innerHeight - 72) scrollBy(0, box + height() - innerHeight + 72)
    drawRows()
    for (const at of [before, i]) {
      const el = drawn.get(at)
      if (el) drawRow(at, el)
    }
    const el = drawn.get(i)
    if (el) el.querySelector('a')?.focus({ preventScroll: true })
  }

  /** @param {(l: Link) => unknown} act */
  const onCurrent = (act) => () => {
    const l = row(current)
    return l ? act(l) : false
  }

  let resting = 0
  let fetching = 0
  /** @param {number} from @param {number} to */
  function fetchLines(from, to) {
    if (!wide.matches || !feed.clicks) return
    const zone = locale().timeZone
    const start = toWall(Date.now() - 29 * 86400e3).slice(0, 10)
    const next = () => {
      if (signal.aborted || fetching >= 3) return
      const i = Array.from({ length: Math.max(0, to - from) }, (_, k) => from + k).find((i) => row(i)?.clicks && !lines.has(row(i).code))
      if (i === undefined) return
      const code = row(i).code
      lines.set(code, null)
      fetching++
      api.call('GET', `/links/${encodeURIComponent(code)}/clicks`, { query: { from: start, unit: 'day', tz: zone }, signal })
        .then(({ data }) => {
          const days = new Array(30).fill(0)
          const first = Date.parse(start)
          for (const r of data.rows) days[Math.round((Date.parse(r.start.slice(0, 10)) - first) / 86400e3)] = r.clicks
          lines.set(code, days)
          const at = drawn.get(i)
          if (at && row(i)?.code === code) drawRow(i, at)
        }, () => {
          // A glance that is missing is no trouble worth telling. The number beside it is there.
        })
        .finally(() => {
          fetching--
          next()
        })
      next()
    }
    next()
  }

  async function importLinks() {
    const module = await import('../ui/import.js')
    if (await module.importLinks(app)) start(true)
  }

  /** @param {string} accept */
  async function exportLinks(accept) {
    app.toast(t('links.exporting'))
    try {
      const { data } = await api.call('GET', '/links/export', { query: { owner: filters.owner }, accept, signal })
      save(data, accept === 'text/csv' ? 'links.csv' : 'links.ndjson', accept)
    } catch (err) {
      app.toast(explain(err), { kind: 'bad' })
    }
  }

  let waiting = false
  const scrolled = () => {
    if (waiting) return
    waiting = true
    requestAnimationFrame(() => {
      waiting = false
      const m = /** @type {HTMLElement | null} */ (document.querySelector('.rows [popover]:popover-open'))
      if (m) m.hidePopover()
      drawRows()
    })
  }
  const resized = () => drawRows(true)
  addEventListener('scroll', scrolled, { passive: true })
  addEventListener('resize', resized)
  narrow.addEventListener('change', resized)
  signal.addEventListener('abort', () => {
    removeEventListener('scroll', scrolled)
    removeEventListener('resize', resized)
    clearTimeout(typing)
    clearTimeout(slowly)
    clearTimeout(resting)
    coming?.stop()
    feed?.stop()
  })

  root.append(body, bar)
  const held = kept
  if (held && held.key === address(filters)) {
    feed = Object.assign(new Feed(ask(filters), () => changed()), held.feed, { changed, abort: new AbortController(), busy: null })
    app.replace(`/links${held.key}`)
    drawHead()
    list.style.height = `${count() * height()}px`
    requestAnimationFrame(() => drawRows(true))
    start(true)
  } else {
    start()
    drawHead()
    await /** @type {Feed | null} */ (coming)?.busy
  }
  requestAnimationFrame(() => {
    drawRows(true)
    if (route.query.get('focus') === 'search') focus(body, '#links-q')
  })

  return {
    /** @param {import('../app.js').Route} r */
    update(r) {
      filters = read(r.query)
      unfolded ||= folded(filters) > 0
      drawHead()
      start()
      if (r.query.get('focus') === 'search') focus(body, '#links-q')
    },
    back() {
      if (feed) start(true)
      else start()
    },
    keys: {
      '/': () => focus(body, '#links-q'),
      j: () => go(current + 1),
      k: () => go(current - 1),
      c: onCurrent(async (l) => app.toast(t((await copy(l.short_url)) ? 'ui.copied' : 'ui.not_copied'), { kind: 'good' })),
      q: onCurrent(qr),
      e: onCurrent((l) => app.can('manage') && !l.deleted && app.go(`/links/${l.code}/edit`)),
      x: () => (current >= 0 ? select(current, false) : false),
      Escape: () => (bulk.size > 0 ? bulk.clear() : false),
    },
  }
}

/** @param {URLSearchParams} q @returns {Filters} */
function read(q) {
  const get = (/** @type {string} */ name) => q.get(name) ?? ''
  return { q: get('q'), tag: get('tag'), state: get('state'), owner: get('owner'), from: get('from'), to: get('to'), sort: get('sort') }
}

/** How many filters are set of those that may be folded. @param {Filters} f */
const folded = (f) => [f.tag, f.state, f.owner, f.from, f.to].filter(Boolean).length

/** @param {Filters} f */
function address(f) {
  const q = new URLSearchParams(Object.entries(f).filter(([, v]) => v !== ''))
  return q.size > 0 ? `?${q}` : ''
}

/** The parameters of the API. @param {Filters} f @returns {import('../api.js').Query} */
function ask(f) {
  // Who searches for a short link pastes it whole; only the code is among the words.
  const q = f.q.trim().replace(/^(https?:\/\/)?([^/\s]+)\//, (whole, _, host) => (host === location.host ? '' : whole))
  // A day lasts until the next one begins, in the time zone of the page.
  const next = f.to && new Date(Date.parse(f.to) + 86400e3).toISOString().slice(0, 10)
  return { q, tag: f.tag, state: f.state, owner: f.owner, sort: f.sort, from: f.from && fromWall(`${f.from}T00:00`), to: next && fromWall(`${next}T00:00`) }
}
