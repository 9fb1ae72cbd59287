// The clicks of something, a link or many: how many, over time, and by each dimension. What is asked stands
// in the address. A click on a row of a panel filters all the others. The sections of a link and the overview
// put this into their pages.

import { Away, Problem, call } from '../api.js'
import { format, locale, t } from '../texts.js'
import { canFilter, ask, askedUnit, dayAt, dayIn, dayNumber, dimensions, divide, partNames, presets, readRange, toggled, withChanges } from '../ui/range.js'
import { countryName } from '../ui/countries.js'
import { loadMap, worldMap } from '../ui/map.js'
import { chart as makeChart, barsFit } from '../ui/chart.js'
import { chip, copy, empty, explain, html, icon, menu, nothing, render, save, skeleton, svg, toast, trouble } from '../ui.js'
import { watchLive } from './live.js'

/** @typedef {import('../app.js').App} App
 * @typedef {import('../ui/range.js').Range} Range
 * @typedef {import('../ui/range.js').Answer} Answer
 * @typedef {{path: string, params: Record<string, string>, live: Record<string, string>, since?: string, name: string, links: boolean}} Scope
 *   path: of the question; params: that it always has; live: those of the live view; since: the day that all begins at;
 *   name: of files that are downloaded; links: whether there are several, so that the live view names them
 * @typedef {{of?: string, rows?: {value: string, clicks: number}[], total: number, error?: unknown, tooFine?: boolean}} Panel
 * @typedef {{of: Answer, range: Range, divided: ReturnType<typeof divide>, long: (at: string) => string, points: import('../ui/chart.js').Point[]}} View
 * @typedef {import('../ui.js').Piece} Piece */

/** How many rows a panel has until all are asked for, and at most. */
const fewRows = 7
const manyRows = 100
/** Requests for panels at once. A browser has six connections to a server, and the live view holds one. */
const atOnce = 3
/** Stands for the values that were too many to be told apart. */
const rest = '(other)'

const panels = [
  { id: 'country', dimensions: ['country'] },
  { id: 'referrer', dimensions: ['referrer'] },
  { id: 'utm', dimensions: ['utm_source', 'utm_medium', 'utm_campaign'] },
  { id: 'browser', dimensions: ['browser'] },
  { id: 'os', dimensions: ['os'] },
  { id: 'device', dimensions: ['device'] },
  { id: 'via', dimensions: ['via'] },
  { id: 'bot', dimensions: ['bot'] },
]

/** A value of a dimension as a person reads it. @param {string} dimension @param {string} value */
export function nameOf(dimension, value) {
  if (value === rest) return t('clicks.other')
  if (dimension === 'country') return value === '' ? t('clicks.unknown') : countryName(value)
  if (dimension === 'device' && ['desktop', 'phone', 'tablet', 'tv'].includes(value)) return t(`clicks.device_${value}`)
  if (dimension === 'bot' && ['', 'crawler', 'preview', 'prefetch'].includes(value)) return t(`clicks.bot_${value || 'none'}`)
  if (dimension === 'via') return t(value === 'qr' ? 'clicks.via_qr' : 'clicks.via_none')
  if (value !== '') return value
  return t(dimension === 'referrer' ? 'clicks.direct' : dimension.startsWith('utm') ? 'clicks.none' : 'clicks.unknown')
}

/** @param {App} app @param {HTMLElement} root an empty element @param {URLSearchParams} query @param {(query: URLSearchParams) => Promise<unknown> | void} go changes the
 * address's query @param {Scope} scope
 * @returns {{update: (query: URLSearchParams, scope?: Scope) => void, refresh: () => void, since: (day: string | undefined) => void, close: () => void}} */
export function openClicks(app, root, query, go, scope) {
  let range = readRange(query, scope.since)
  /** @type {Answer | undefined} */
  let series
  let seriesOf = '' // the question that it answers
  let shown = range // the range that it is about: another one may have been picked, and not be told yet
  /** @type {unknown} */
  let failed
  let since = '' // since when hours, and several dimensions at once, are known; '' until it was told
  /** @type {{clicks?: number, visitors?: number, previous?: {visitors?: number}} | undefined} */
  let people
  /** @type {Map<string, Panel>} by dimension */
  const told = new Map()
  const wide = new Set() // panels that show all their rows
  /** @type {Record<string, string>} which dimension a panel with several shows */
  const tab = { utm: 'utm_source' }
  /** @type {import('../ui/map.js').Shape[]} */
  let shapes = []
  let asTable = false
  let custom = false // the fields for a time of one's own are open
  let busy = false
  let loading = new AbortController()
  let loadedIn = 0
  let timer = 0
  let closed = false

  /** What follows from the series, made once: the live view draws every second. @type {View | undefined} */
  let made
  /** @type {ReturnType<typeof makeChart> | undefined} */
  let plot
  /** @type {unknown} */
  let plotted
  const plotHost = document.createElement('div')

  loadMap().then((s) => {
    shapes = s
    draw()
  }, () => {}) // Without the map there is its table.

  // What was just clicked is in the numbers after a second or two. While clicks go on, numbers are renewed ever
  // less often, and those of large scopes, too: a key may have a rate.
  let pace = 2500
  let renewed = 0
  const live = watchLive(scope.live, () => draw(), () => {
    if (timer !== 0) return
    if (Date.now() - renewed > 60_000) pace = 2500
    timer = window.setTimeout(refresh, Math.max(pace, 5 * loadedIn))
    renewed = Date.now()
    pace = Math.min(30_000, 2 * pace)
  })

  /** @param {Record<string, string | null>} changes */
  const change = (changes) => go(withChanges(query, changes))

  /** @param {Record<string, string>} extra @param {string} [except] */
  const question = (extra, except) => {
    const q = ask(range, { except, extra })
    for (const [name, value] of Object.entries(scope.params)) q.set(name, value)
    return `${scope.path}?${q}`
  }

  async function load() {
    loading.abort()
    loading = new AbortController()
    window.clearTimeout(timer)
    timer = 0
    const { signal } = loading
    const began = performance.now()
    busy = true
    draw()
    // The chart comes first. Panels ask only when it is there.
    const get = async (/** @type {boolean} */ compare) => (await call('GET', question({ unit: askedUnit(range), ...(compare ? { compare: 'previous' } : {}) }), { signal })).data
    try {
      const compare = range.compare && known(range.where.size, dayNumber(range.from) - range.days)
      series = await get(compare).catch((err) => {
        // What is known of this time may not be known of the one before.
        if (!compare || !isTooFine(err)) throw err
        return get(false)
      })
      seriesOf = question({})
      shown = range
      failed = undefined
    } catch (err) {
      if (signal.aborted) return
      // What is on the screen is worth more than the news that it cannot be renewed: the banner says that.
      const later = err instanceof Away || err instanceof Problem && err.code === 'rate_limited'
      if (!later || seriesOf !== question({})) {
        failed = err
        series = undefined
      }
    }
    if (series) since = series.since.hours
    // Of a time of which nothing is kept, 0 is not known to be true.
    if (series?.previous && forgotten(series.previous.from.slice(0, 10))) series.previous = undefined
    else if (isTooFine(failed)) since = /since (\d{4}-\S+?Z)/.exec(String(failed))?.[1] ?? since
    if (signal.aborted) return
    draw()
    if (!failed) await loadRest(signal)
    if (signal.aborted) return
    loadedIn = performance.now() - began
    busy = false
    draw()
  }

  /** @param {AbortSignal} signal */
  async function loadRest(signal) {
    /** @type {(() => Promise<void>)[]} */
    const jobs = [loadPeople]
    for (const d of shownDimensions()) jobs.push(() => loadPanel(d, signal))
    const work = async () => {
      for (let job = jobs.shift(); job && !signal.aborted; job = jobs.shift()) {
        await job()
        if (!signal.aborted) draw()
      }
    }
    await Promise.all(Array.from({ length: atOnce }, work))

    // People are counted by days in UTC, and neither by dimensions nor among bots.
    async function loadPeople() {
      if (range.where.size > 0 || range.bots === 'only') {
        people = undefined
        return
      }
      const q = new URLSearchParams({ ...scope.params, from: range.from, to: range.to, unit: 'whole', ...(range.compare ? { compare: 'previous' } : {}) })
      const { data } = await call('GET', `${scope.path}?${q}`, { signal }).catch(() => ({ data: undefined }))
      if (!signal.aborted) people = data
    }
  }

  /** Whether clicks of the day are not kept any more. @param {string} day */
  const forgotten = (day) => Boolean(series?.since.days && day < series.since.days.slice(0, 10))

  /** Whether the service knows of a time from that day on by so many dimensions at once. @param {number} several @param {number} day */
  const known = (several, day) => (several < 2 && range.unit !== 'hour') || since === '' || day > dayNumber(since.slice(0, 10))

  const shownDimensions = () => panels.filter((p) => p.id !== 'bot' || range.bots !== '' || range.where.has('bot')).map((p) => tab[p.id] ?? p.dimensions[0])

  /** @param {string} dimension @param {AbortSignal} signal */
  async function loadPanel(dimension, signal) {
    const others = [...range.where.keys()].filter((d) => d !== dimension).length
    if (range.unit !== 'hour' && !known(others + 1, dayNumber(range.from))) {
      told.set(dimension, { total: 0, tooFine: true })
      return
    }
    // The panel of a filter shows the other values, too: that is how one adds another.
    const asked = question({ by: dimension, limit: String(manyRows) }, dimension)
    try {
      const { data } = await call('GET', asked, { signal })
      if (signal.aborted) return
      /** @type {{value: string, clicks: number}[]} */
      const rows = data.rows.map((/** @type {any} */ r) => ({ value: r[dimension], clicks: r.clicks }))
      // What could not be told apart is no value, and stands below all of them.
      told.set(dimension, { of: asked, rows: [...rows.filter((r) => r.value !== rest), ...rows.filter((r) => r.value === rest)], total: data.clicks })
    } catch (error) {
      if (!signal.aborted && !(error instanceof Away && told.get(dimension)?.of === asked)) told.set(dimension, { total: 0, error })
    }
  }

  function refresh() {
    timer = 0
    if (closed) return
    if (document.hidden) {
      document.addEventListener('visibilitychange', refresh, { once: true })
      return
    }
    range = readRange(query, scope.since) // a day may have passed
    load()
  }

  // Drawing

  function draw() {
    if (closed) return
    render(html`
      ${controls()}
      ${failed ? isTooFine(failed) && since ? tooFine('fine_chart') : html`<div class="card">${trouble(failed, load)}</div>` : html`
        <section class="clicks-main card ${busy && series ? 'stale' : ''}" aria-busy=${busy}>
          ${figures()}
          ${chartArea()}
        </section>
        ${!series ? nothing : forgotten(range.from) ? tooFine('kept') : range.compare && !series.previous ? tooFine(series.since.days ? 'kept_before' : 'fine_before') : nothing}
        ${livePart()}
        ${series && series.clicks === 0 && range.where.size === 0 ? nothing : html`
          ${series && range.where.size > 0 && !known(2, dayNumber(range.from)) ? tooFine('fine') : nothing}
          <div class="panels">${panels.filter((p) => p.id !== 'bot' || range.bots !== '' || range.where.has('bot')).map(panelCard)}</div>`}`}
    `, root)
    drawChart()
  }

  function controls() {
    const names = Object.keys(presets)
    if (scope.since) names.push('all')
    const on = (/** @type {string} */ p) => !custom && range.preset === p
    return html`
      <div class="clicks-controls">
        <div class="segments" role="group" aria-label=${t('clicks.range')}>
          ${names.map((p) => html`<button type="button" aria-pressed=${on(p)} @click=${() => { custom = false; change({ range: p, from: null, to: null, unit: null }) }}>${t(`clicks.range_${p}`)}</button>`)}
          <button type="button" aria-pressed=${custom || range.preset === ''} aria-expanded=${custom || range.preset === ''} @click=${() => { custom = !custom; draw() }}>${t('clicks.range_own')}</button>
        </div>
        <label class="clicks-pick"><span class="sr-only">${t('clicks.unit')}</span>
          <select @change=${(/** @type {Event} */ e) => change({ unit: /** @type {HTMLSelectElement} */ (e.target).value })}>
            ${range.units.map((u) => html`<option value=${u} .selected=${u === range.unit}>${t(`clicks.unit_${u}`)}</option>`)}
          </select></label>
        <label class="clicks-pick"><span class="sr-only">${t('clicks.bots')}</span>
          <select @change=${(/** @type {Event} */ e) => change({ bots: /** @type {HTMLSelectElement} */ (e.target).value || null })}>
            ${['', 'include', 'only'].map((b) => html`<option value=${b} .selected=${b === range.bots}>${t(`clicks.bots_${b || 'out'}`)}</option>`)}
          </select></label>
        <label class="check"><input type="checkbox" .checked=${range.compare} @change=${(/** @type {Event} */ e) => change({ compare: /** @type {HTMLInputElement} */ (e.target).checked ? null : 'off' })}>${t('clicks.compare')}</label>
      </div>
      ${custom || range.preset === '' ? ownTime() : nothing}
      ${filters()}`
  }

  function ownTime() {
    /** @param {SubmitEvent} e */
    const set = (e) => {
      e.preventDefault()
      const data = new FormData(/** @type {HTMLFormElement} */ (e.target))
      const [a, b] = [String(data.get('first')), String(data.get('last'))].sort()
      if (!a || !b) return
      custom = false
      change({ range: null, from: a, to: dayAt(dayNumber(b) + 1), unit: null })
    }
    return html`<form class="clicks-own" @submit=${set}>
      <label>${t('clicks.first')}<input type="date" name="first" required max=${range.today} .value=${range.from}></label>
      <label>${t('clicks.last')}<input type="date" name="last" required max=${range.today} .value=${dayAt(dayNumber(range.to) - 1)}></label>
      <button class="button">${t('clicks.show')}</button>
    </form>`
  }

  function filters() {
    if (range.where.size === 0) return nothing
    return html`<div class="clicks-filters" role="group" aria-label=${t('clicks.filters')}>
      ${icon('filter')}
      ${[...range.where].flatMap(([d, values]) => values.map((v) => chip(`${t(`clicks.by_${d}`)}: ${nameOf(d, v)}`, { remove: () => change(toggled(range, d, v)) })))}
      <button type="button" class="link-button small" @click=${() => change(Object.fromEntries(dimensions.map((d) => [d, null])))}>${t('clicks.all')}</button>
    </div>`
  }

  function figures() {
    if (!series) return html`<div class="figures">${[1, 2, 3].map(() => html`<div>${skeleton(2)}</div>`)}</div>`
    const { divided: { over, overBefore, elapsed, parts }, long } = view(series)
    // Before a link was made, no day could have clicks.
    const done = Math.min(elapsed / (shown.unit === 'hour' ? 24 : 1), scope.since ? dayNumber(shown.today) - dayNumber(scope.since) : Infinity)
    const best = parts.reduce((x, y) => ((y.now ?? 0) > (x?.now ?? 0) ? y : x), parts[0])
    return html`<dl class="figures">
      <div><dt>${t('clicks.clicks')}</dt><dd><span class="figure">${format.n(series.clicks)}</span> ${overBefore === null || elapsed === 0 ? nothing : changed(over, overBefore)}</dd>
        ${series.previous ? html`<dd class="muted small">${t('clicks.before', { n: series.previous.clicks })}</dd>` : nothing}</div>
      <div><dt>${t('clicks.visitors')}</dt><dd>${people?.visitors === undefined
        ? html`<span class="figure muted">–</span>`
        : html`<span class="figure">${format.n(people.visitors)}</span>`}</dd>
        <dd class="muted small">${shown.where.size > 0 || shown.bots === 'only' ? t('clicks.visitors_not') : people && people.visitors === undefined ? t('clicks.visitors_unknown') : people?.previous?.visitors !== undefined ? t('clicks.before', { n: people.previous.visitors }) : shown.tz === 'UTC' ? nothing : t('clicks.visitors_utc')}</dd></div>
      ${done >= 1 && over > 0 && shown.days > 1 ? html`<div><dt>${t('clicks.a_day')}</dt><dd><span class="figure">${format.n(Math.round((over / done) * (over / done < 10 ? 10 : 1)) / (over / done < 10 ? 10 : 1))}</span></dd>
        <dd class="muted small">${t('clicks.a_day_of', { n: Math.floor(done) })}</dd></div>` : nothing}
      ${best && (best.now ?? 0) > 0 && parts.length > 1 ? html`<div><dt>${t(`clicks.best_${shown.unit}`)}</dt><dd><span class="figure">${format.n(best.now ?? 0)}</span></dd>
        <dd class="muted small">${long(best.at)}</dd></div>` : nothing}
    </dl>`
  }

  /** @param {number} now @param {number} before in as much of the time as is over */
  function changed(now, before) {
    if (before === 0 && now === 0) return nothing
    const share = before === 0 ? Infinity : now / before - 1
    const up = now >= before
    const about = t('clicks.changed', { now, before })
    const text = share === Infinity ? t('clicks.new') : `${up ? '+' : '−'}${format.percent(Math.abs(share))}`
    return html`<span class="state ${up ? 'state-good' : 'state-bad'}" title=${about}>${text}<span class="sr-only">. ${about}</span></span>`
  }

  function chartArea() {
    const some = series && series.clicks + (series.previous?.clicks ?? 0) > 0
    return html`
      <div class="clicks-chart-head">
        <p class="muted small">${t('clicks.zone')} <button type="button" class="link-button small" @click=${pickZone}>${shown.tz.replaceAll('_', ' ')}</button></p>
        ${series?.previous && some ? html`<div class="clicks-legend"><span class="legend"><i class="legend-now"></i>${t('clicks.now')}</span><span class="legend"><i class="legend-before ${barsFit(view(series).points.length, plotHost.clientWidth || root.clientWidth) ? '' : 'legend-line'}"></i>${t('clicks.time_before')}</span></div>` : nothing}
        <div class="row">
          ${some ? html`<button type="button" class="button button-small" aria-pressed=${asTable} @click=${() => { asTable = !asTable; draw() }}>${t('clicks.table')}</button>` : nothing}
          ${numbersOf('chart', t('clicks.over_time'), () => ({ unit: shown.unit, ...(shown.compare ? { compare: 'previous' } : {}) }))}
        </div>
      </div>
      ${!series ? html`<div class="chart-space">${skeleton(1)}</div>`
        : !some ? html`<div class="chart-space">${nothingYet()}</div>`
          : html`<div class="chart-space" ?hidden=${asTable}>${plotHost}</div>${asTable ? partTable() : nothing}`}`
  }

  function nothingYet() {
    return shown.where.size > 0
      ? empty({ icon: 'filter', title: t('clicks.none_filtered') })
      : empty({ icon: 'chart', title: t('clicks.empty'), text: t('clicks.empty_text') })
  }

  function partTable() {
    if (!series) return nothing
    const { points } = view(series)
    return html`<div class="table-scroll" tabindex="0" role="region" aria-label=${t('clicks.over_time')}><table>
      <thead><tr><th scope="col">${t(`clicks.unit_${shown.unit}`)}</th><th scope="col" class="number">${t('clicks.clicks')}</th>${series.previous ? html`<th scope="col" class="number">${t('clicks.time_before')}</th>` : nothing}</tr></thead>
      <tbody>${points.map((p) => html`<tr><th scope="row">${p.long}</th><td class="number">${p.now === null ? '–' : format.n(p.now)}</td>${series?.previous ? html`<td class="number">${format.n(p.before ?? 0)}</td>` : nothing}</tr>`)}</tbody>
    </table></div>`
  }

  /** @param {Answer} of @returns {View} */
  function view(of) {
    if (made?.of === of && made.range === shown) return made
    const names = partNames(shown)
    const divided = divide(shown, of)
    const long = (/** @type {string} */ at) => (shown.unit === 'week' ? t('clicks.week_of', { day: names.long(at) }) : names.long(at))
    const points = divided.parts.map((p) => ({ label: names.short(p.at), long: long(p.at), open: p.open, now: p.now, before: p.before }))
    return (made = { of, range: shown, divided, long, points })
  }

  function drawChart() {
    if (!series || failed || asTable || !plotHost.isConnected) return
    plot ??= makeChart(plotHost)
    const { points, divided: { parts } } = view(series)
    if (plotted === points) return
    plotted = points
    plot.draw({
      points,
      names: { now: t('clicks.clicks'), before: t('clicks.time_before') },
      label: t('clicks.chart', { n: series.clicks, first: points[0].long, last: points[points.length - 1].long }),
      n: format.n,
      compact: format.compact,
      pick: shown.days > 1 ? (first, last) => zoom(parts[first].at, parts[last].at) : undefined,
    })
  }

  /** Shows only the time that was marked, in whole days. @param {string} first @param {string} last when the parts begin */
  function zoom(first, last) {
    const day = (/** @type {string} */ at) => (shown.unit === 'hour' ? dayNumber(dayIn(shown.tz, new Date(at))) : dayNumber(at))
    let end = day(last) + 1
    if (shown.unit === 'week') end += 6
    if (shown.unit === 'month') end = dayNumber(dayAt(day(last) + 32).slice(0, 8) + '01')
    const from = Math.max(day(first), dayNumber(shown.from))
    const to = Math.min(end, dayNumber(shown.to))
    if (from < to) change({ range: null, from: dayAt(from), to: dayAt(to), unit: null })
  }

  function livePart() {
    const { on, clicks, bots, seconds, events, busy: full } = live.state()
    const most = Math.max(1, ...seconds)
    return html`<section class="card live" aria-label=${t('clicks.live')}>
      <h2 class="live-title"><span class="pulse ${on && !full ? 'pulse-on' : ''}"></span>${t('clicks.live')}</h2>
      <p class="muted small">${full ? t('clicks.live_busy') : on ? t('clicks.live_minute', { n: clicks }) : t('clicks.live_off')}${bots > 0 ? html` · ${t('clicks.live_bots', { n: bots })}` : nothing}</p>
      <svg class="live-bars" viewBox="0 0 240 28" preserveAspectRatio="none" aria-hidden="true">
        ${seconds.map((n, i) => svg`<rect x=${i * 4} y=${n > 0 ? 28 - Math.max(3, (n / most) * 28) : 27} width=${n > 0 ? 3 : 4} height=${n > 0 ? Math.max(3, (n / most) * 28) : 1} class=${n > 0 ? 'live-some' : 'live-none'}></rect>`)}
      </svg>
      <button type="button" class="icon-button" aria-label=${t(on ? 'clicks.live_pause' : 'clicks.live_go_on')} title=${t(on ? 'clicks.live_pause' : 'clicks.live_go_on')} @click=${live.toggle}>${icon(on ? 'pause' : 'play')}</button>
      ${events.length > 0 ? html`<ol class="live-events">${events.slice(0, scope.links ? 8 : 4).map((e) => html`<li><time class="muted">${clock(e.at)}</time>
        ${scope.links ? html`<a class="mono ellipsis" href="/dashboard/links/${encodeURIComponent(e.code)}">${e.code}</a>` : nothing}
        <span>${t('clicks.n_clicks', { n: e.clicks })}</span></li>`)}</ol>` : nothing}
    </section>`
  }

  /** @param {string} at */
  const clock = (at) => new Intl.DateTimeFormat(locale().language, { timeZone: range.tz, hour: 'numeric', minute: '2-digit', second: '2-digit' }).format(new Date(at))

  /** Says what is not known, and shows what is. @param {'fine' | 'fine_chart' | 'fine_before' | 'kept' | 'kept_before'} why */
  function tooFine(why) {
    const day = dayAt(dayNumber(since.slice(0, 10)) + 1)
    return html`<div class="note">${icon('info')}<p>${t(`clicks.${why}`, { day: format.date(since) })}</p>
      ${!why.endsWith('before') && day < range.to ? html`<button type="button" class="button button-small" @click=${() => change({ range: null, from: day, to: range.to, unit: null })}>${t('clicks.fine_do')}</button>` : nothing}</div>`
  }

  /** @param {(typeof panels)[0]} p */
  function panelCard({ id, dimensions: all }) {
    const d = tab[id] ?? all[0]
    const panel = told.get(d)
    const title = t(`clicks.panel_${id}`)
    return html`<section class="card panel panel-${id} ${busy && panel ? 'stale' : ''}" aria-label=${title}>
      <div class="panel-head">
        <h2>${title}</h2>
        ${all.length > 1 ? html`<div class="segments segments-small" role="group" aria-label=${title}>
          ${all.map((x) => html`<button type="button" aria-pressed=${x === d} @click=${() => pickTab(id, x)}>${t(`clicks.tab_${x}`)}</button>`)}</div>` : nothing}
        ${numbersOf(id, title, () => ({ by: d, limit: String(manyRows) }), d)}
      </div>
      ${id === 'country' ? mapOf(panel) : nothing}
      ${panelRows(id, d, panel)}
    </section>`
  }

  /** @param {string} id @param {string} dimension */
  async function pickTab(id, dimension) {
    tab[id] = dimension
    draw()
    await loadPanel(dimension, loading.signal)
    draw()
  }

  /** @param {Panel | undefined} panel */
  function mapOf(panel) {
    if (shapes.length === 0) return html`<div class="map-space"></div>`
    const clicks = new Map((panel?.rows ?? []).filter((r) => r.value !== '' && r.value !== rest).map((r) => [r.value, r.clicks]))
    return html`<div class="map-space">${worldMap({
      shapes, clicks, chosen: range.where.get('country') ?? [], label: t('clicks.map'), name: countryName, n: format.n,
      pick: (code) => change(toggled(range, 'country', code)),
    })}</div>`
  }

  /** @param {string} id @param {string} d @param {Panel | undefined} panel */
  function panelRows(id, d, panel) {
    if (!panel) return skeleton(5)
    if (panel.tooFine || isTooFine(panel.error)) return html`<p class="muted small panel-none">${t('clicks.fine_panel')}</p>`
    if (panel.error) return trouble(panel.error, () => loadPanel(d, loading.signal).then(draw))
    const rows = panel.rows ?? []
    if (rows.length === 0) return html`<p class="muted small panel-none">${t('clicks.panel_none')}</p>`
    const most = Math.max(1, ...rows.filter((r) => r.value !== rest).map((r) => r.clicks))
    const chosen = range.where.get(d) ?? []
    const few = id === 'country' ? fewRows + 3 : fewRows
    const seen = wide.has(id) ? rows : rows.filter((r, i) => i < few || chosen.includes(r.value) || r.value === rest)
    return html`
      <div class="panel-rows ${wide.has(id) ? 'panel-rows-all' : ''}" tabindex=${wide.has(id) ? 0 : nothing} role=${wide.has(id) ? 'region' : nothing} aria-label=${wide.has(id) ? t(`clicks.by_${d}`) : nothing}><table>
        <thead class="sr-only"><tr><th scope="col">${t(`clicks.by_${d}`)}</th><th scope="col">${t('clicks.clicks')}</th><th scope="col">${t('clicks.share')}</th></tr></thead>
        <tbody>${seen.map((r) => {
          const name = nameOf(d, r.value)
          const on = chosen.includes(r.value)
          return html`<tr class=${on ? 'on' : ''}>
            <th scope="row">${canFilter(r.value) || on
              ? html`<button type="button" class="panel-row" aria-pressed=${on} title=${on ? t('clicks.filter_off', { what: name }) : t('clicks.filter_on', { what: name })} @click=${() => change(toggled(range, d, r.value))}>${on ? icon('check') : nothing}<span class="ellipsis ${r.value === '' && d !== 'via' && d !== 'bot' ? 'muted' : ''}">${name}</span></button>`
              : html`<span class="panel-row panel-row-plain" title=${name}><span class="ellipsis muted">${name}</span></span>`}
              <svg class="bar" aria-hidden="true"><rect width="${Math.min(100, (r.clicks / most) * 100).toFixed(2)}%" height="100%" rx="4"></rect></svg></th>
            <td class="number">${format.n(r.clicks)}</td>
            <td class="number muted">${share(r.clicks, panel.total)}</td>
          </tr>`
        })}</tbody></table></div>
      ${rows.length > seen.length || wide.has(id) ? html`<button type="button" class="button button-small button-plain panel-more" aria-expanded=${wide.has(id)} @click=${() => { wide.has(id) ? wide.delete(id) : wide.add(id); draw() }}>${wide.has(id) ? t('clicks.fewer') : t('clicks.more', { n: rows.length })}</button>` : nothing}`
  }

  /** @param {string} id @param {string} title @param {() => Record<string, string>} extra @param {string} [except] */
  const numbersOf = (id, title, extra, except) => numbersMenu(id, title, () => question(extra(), except), `${scope.name}-${id}.csv`)

  async function pickZone() {
    const { pickZone: pick } = await import('./zone.js')
    const tz = await pick(app, range.tz)
    if (tz) change({ tz: tz === locale().timeZone ? null : tz })
  }

  draw()
  load()
  return {
    update(next, nextScope = scope) {
      query = next
      const moved = nextScope.path !== scope.path || JSON.stringify(nextScope.params) !== JSON.stringify(scope.params)
      scope = nextScope
      range = readRange(query, scope.since)
      if (moved) {
        told.clear()
        series = people = undefined
        live.move(scope.live)
      }
      load()
    },
    refresh: load,
    /** Tells when the link was made, once that is known. @param {string | undefined} day */
    since(day) {
      if (day === scope.since) return
      scope = { ...scope, since: day }
      const before = question({})
      range = readRange(query, day)
      made = undefined
      if (question({}) !== before) load()
      else draw()
    },
    close() {
      closed = true
      loading.abort()
      window.clearTimeout(timer)
      document.removeEventListener('visibilitychange', refresh)
      live.close()
      plot?.close()
    },
  }
}

/** @param {unknown} err */
const isTooFine = (err) => err instanceof Error && /are kept since/.test(err.message)

/** @param {number} part @param {number} whole */
function share(part, whole) {
  if (whole === 0) return ''
  const s = part / whole
  return s > 0 && s < 0.005 ? `<${format.percent(0.01)}` : format.percent(s)
}

/** A menu to take numbers along: as a file, or as the address that the API tells them at.
 * @param {string} id unique in the page @param {string} title of what the numbers are of @param {() => string} path @param {string} file */
export const numbersMenu = (id, title, path, file) => menu(`api-${id}`, {
  label: t('clicks.menu', { what: title }),
  items: () => [
    { label: t('clicks.csv'), icon: 'download', run: () => download(path(), file) },
    { label: t('clicks.api'), icon: 'copy', run: () => copied(location.origin + path()) },
    { label: t('clicks.curl'), icon: 'copy', run: () => copied(`curl "${location.origin}${path()}" -H "API-Key: $API_KEY"`) },
  ],
})

/** @param {string} text */
async function copied(text) {
  const done = await copy(text)
  toast(t(done ? 'ui.copied' : 'ui.not_copied'), { kind: done ? 'good' : 'bad' })
}

/** Saves what the API answers as CSV. A link cannot: the API tells CSV by the header Accept. @param {string} path @param {string} name */
async function download(path, name) {
  try {
    const { data } = await call('GET', path, { accept: 'text/csv' })
    save(data, name, 'text/csv')
  } catch (err) {
    toast(explain(err), { kind: 'bad' })
  }
}
