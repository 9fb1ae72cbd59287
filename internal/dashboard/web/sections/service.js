// The service itself, for who runs it: how it is, what holds it up, which keys there are, and how it sees
// whoever looks.

import { call } from '../api.js'
import { format, t } from '../texts.js'
import { chip, copyButton, html, icon, nothing, render, skeleton, trouble } from '../ui.js'

/** @typedef {import('../ui.js').Piece} Piece */

const every = 10_000 // ms between two looks

/** @param {import('../app.js').App} app @param {HTMLElement} root */
export default async function open(app, root) {
  /** As GET /service says it: openapi.yaml. @type {any} */
  let service = null
  /** @type {any} */
  let you = null
  /** @type {unknown} */
  let failed = null
  let at = new Date()

  const look = async () => {
    try {
      const [s, y] = await Promise.all([call('GET', '/service', { signal: app.signal }), call('GET', '/service/you', { signal: app.signal })])
      service = s.data
      you = y.data
      at = new Date()
      failed = null
    } catch (err) {
      if (app.signal.aborted) return
      failed = err
    }
    draw()
  }

  const draw = () => {
    app.title(t('nav.service'))
    render(html`
      <header class="section-head"><h1>${t('nav.service')}</h1>
        <div class="row">${service ? html`<span class="muted small">${t('service.at', { time: format.time(at) })}</span>` : nothing}
          <button type="button" class="button" @click=${look}>${t('service.again')}</button></div></header>
      ${failed ? trouble(failed, look) : nothing}
      ${service ? html`<div class="service">${health()}${service.redis.map(redis)}${archive()}${clicks()}${backends()}${keys()}${seen()}</div>` : failed ? nothing : skeleton(8)}`, root)
  }

  const health = () => html`
    <section class="card service-health" aria-labelledby="service-health">
      <div class="spread"><h2 id="service-health">${t('service.health')}</h2>
        <span class="state ${service.status === 'ok' ? 'state-good' : 'state-warn'}">${icon(service.status === 'ok' ? 'check' : 'warn')}${t(service.status === 'ok' ? 'service.ok' : service.status === 'degraded' ? 'service.degraded' : 'service.unavailable')}</span></div>
      ${(service.reasons ?? []).length > 0 ? html`<ul class="service-reasons">${service.reasons.map((/** @type {string} */ r) => html`<li>${r}</li>`)}</ul>` : nothing}
      ${facts([[t('service.version'), html`<span class="mono">${service.version}</span>`]])}
    </section>`

  /** @param {any} r */
  const redis = (r) => part(`redis_${r.name}`, r, () => [
    [t('service.memory'), r.max_bytes > 0
      ? html`${t('service.memory_of', { used: bytes(r.used_bytes), limit: bytes(r.max_bytes), share: format.percent(r.used_bytes / r.max_bytes) })}
          <meter aria-label=${t('service.memory')} min="0" max=${r.max_bytes} .value=${r.used_bytes}></meter>`
      : t('service.memory_free', { used: bytes(r.used_bytes) })],
    [t('service.policy'), html`<span class="mono">${r.maxmemory_policy}</span>`],
    [t('service.keys_held'), format.n(r.keys)],
    [t('service.keys_fixed'), format.n(r.keys_without_ttl)],
    [t('service.evicted'), format.n(r.evicted_keys)],
    [t('service.version'), html`<span class="mono">${r.version}</span>`],
  ])

  const archive = () => {
    const a = service.archive
    if (!a) return part('archive', {}, () => [], html`<p class="muted">${t('service.no_archive')}</p>`)
    return part('archive', a, () => [
      [t('service.pending'), format.n(a.pending_marks)],
      [t('service.lag'), seconds(a.lag_seconds)],
      ...(a.moving ? [/** @type {[string, Piece]} */ ([t('service.moving'), t('service.moving_now')])] : []),
    ], table('service.shards', ['shard', 'address', 'links', 'size'], (a.shards ?? []).map((/** @type {any} */ s) => [
      format.n(s.shard), html`<span class="mono">${s.address}</span> ${s.error ? html`<span class="state state-bad" title=${s.error}>${t('service.silent')}</span>` : nothing}`,
      s.error ? '' : format.n(s.rows_estimate), s.error ? '' : bytes(s.bytes),
    ]), [0, 2, 3]))
  }

  const clicks = () => {
    const c = service.clicks
    if (!c) return part('clicks', {}, () => [], html`<p class="muted">${t('service.clicks_off')}</p>`)
    return part('clicks', c, () => [
      [t('service.queue'), c.queue],
      [t('service.waiting'), format.n(c.waiting_batches)],
      [t('service.lag'), seconds(c.lag_seconds)],
      [t('service.recorded'), format.n(c.recorded)],
      [t('service.applied'), format.n(c.applied)],
      [t('service.dropped'), html`<span class=${c.dropped > 0 ? 'state state-bad' : ''}>${format.n(c.dropped)}</span>`],
    ])
  }

  const backends = () => {
    const b = service.backends
    return part('backends', b, () => [], html`<p class="muted">${t('service.backends_text')}</p>
      ${table('service.backends', ['node', 'host', 'pid', 'since'], (b.list ?? []).map((/** @type {any} */ n) => [
        format.n(n.node), html`<span class="mono">${n.host}</span> ${n.this ? html`<span class="state state-good">${t('service.this')}</span>` : nothing}`,
        n.pid ?? '', n.since ? format.dateTime(n.since) : '',
      ]), [0, 2])}`, 'service-wide')
  }

  const keys = () => html`
    <section class="card service-wide" aria-labelledby="service-keys">
      <h2 id="service-keys">${t('service.keys')}</h2>
      ${table('service.keys', ['key', 'scopes', 'rate'], (service.keys ?? []).map((/** @type {any} */ k) => [
        html`<strong>${k.name}</strong>`, html`<span class="row">${k.scopes.map((/** @type {string} */ s) => chip(s))}</span>`, k.rate || html`<span class="muted">${t('service.unlimited')}</span>`,
      ]))}
      <details><summary>${t('service.add')}</summary>
        <ol class="service-steps">
          <li>${t('service.add_1')}${command('server key shop -scopes create,read,manage -rate 100/s >> keys')}</li>
          <li>${t('service.add_2')}${command('kill -HUP PID')}</li>
          <li>${t('service.add_3')}</li>
        </ol>
      </details>
    </section>`

  const seen = () => html`
    <section class="card service-wide" aria-labelledby="service-you">
      <h2 id="service-you">${t('service.you')}</h2>
      <p class="muted">${t('service.you_text')}</p>
      ${facts([
        [t('service.address'), html`<span class="mono">${you.address || t('service.unknown')}</span>`],
        [t('service.country'), you.country || html`<span class="muted">${t('service.unknown')}</span>`],
        [t('service.scheme'), html`<span class="mono">${you.scheme}://${you.host}</span>`],
      ])}
      <details><summary>${t('service.headers')}</summary>
        ${table('service.headers', ['header', 'value'], (you.headers ?? []).map((/** @type {any} */ h) => [html`<span class="mono">${h.name}</span>`, html`<span class="mono service-value">${h.value}</span>`]))}
      </details>
    </section>`

  // It is looked at again while somebody sees it.
  const timer = setInterval(() => document.visibilityState === 'visible' && look(), every)
  draw()
  look()
  return { update: draw, back: look, close: () => clearInterval(timer) }
}

/** A card. What says that it is away says so instead of its numbers.
 * @param {string} name @param {any} about @param {() => [string, Piece][]} rows @param {Piece} [rest] @param {string} [wide] */
const part = (name, about, rows, rest = nothing, wide = '') => html`
  <section class="card ${wide}" aria-labelledby="service-${name}">
    <h2 id="service-${name}">${t(`service.${name}`)}</h2>
    ${about?.error ? html`<p class="trouble">${icon('warn')}<span>${about.error}</span></p>` : html`${facts(rows())}${rest}`}
  </section>`

/** @param {[string, Piece][]} rows */
const facts = (rows) => rows.length === 0 ? nothing : html`<dl class="service-facts">${rows.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`

/** @param {string} caption @param {string[]} columns @param {Piece[][]} rows @param {number[]} [numbers] the columns that are numbers */
const table = (caption, columns, rows, numbers = []) => html`
  <div class="service-table" role="group" tabindex="0" aria-label=${t(caption)}><table>
    <thead><tr>${columns.map((c, i) => html`<th scope="col" class=${numbers.includes(i) ? 'number' : ''}>${t(`service.${c}`)}</th>`)}</tr></thead>
    <tbody>${rows.map((cells) => html`<tr>${cells.map((cell, i) => html`<td class=${numbers.includes(i) ? 'number' : ''}>${cell}</td>`)}</tr>`)}</tbody>
  </table></div>`

/** @param {string} text */
const command = (text) => html`<span class="service-command"><code>${text}</code>${copyButton(text)}</span>`

/** @param {number} n */
function bytes(n) {
  const units = ['byte', 'kilobyte', 'megabyte', 'gigabyte', 'terabyte']
  let at = 0
  for (; n >= 1024 && at < units.length - 1; at++) n /= 1024
  return new Intl.NumberFormat(document.documentElement.lang, { style: 'unit', unit: units[at], unitDisplay: 'short', maximumFractionDigits: n < 10 ? 1 : 0 }).format(n)
}

/** @param {number} n */
const seconds = (n) => t('service.seconds', { n: Math.round(n * 10) / 10 })
