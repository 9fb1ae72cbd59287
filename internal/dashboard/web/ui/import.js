// Importing links: first what would happen, then it happens.
//
//   importLinks(app)   a dialog; resolves with true if links were stored

import { stream } from '../api.js'
import { t } from '../texts.js'
import { dialog, explain, html, icon, nothing } from '../ui.js'

/** @typedef {{line: number, code: string, result: 'created' | 'exists' | 'conflict' | 'invalid', detail?: string}} Outcome
 * @typedef {Record<'created' | 'exists' | 'conflict' | 'invalid', number>} Counts */

const mostShown = 500 // rows that are told one by one
const kinds = /** @type {const} */ (['created', 'exists', 'conflict', 'invalid'])

/** @param {import('../app.js').App} app @returns {Promise<boolean>} */
export async function importLinks(app) {
  /** @type {File | null} */
  let file = null
  /** @type {'choose' | 'trying' | 'tried' | 'storing' | 'stored'} */
  let step = 'choose'
  /** @type {Counts} */
  let counts = { created: 0, exists: 0, conflict: 0, invalid: 0 }
  /** @type {Outcome[]} */
  let outcomes = []
  /** @type {string | null} */
  let error = null
  let stored = false
  let draw = () => {}
  let stop = new AbortController()
  let drawn = 0

  /** @param {boolean} dry */
  async function run(dry) {
    if (!file) return
    step = dry ? 'trying' : 'storing'
    counts = { created: 0, exists: 0, conflict: 0, invalid: 0 }
    outcomes = []
    error = null
    stop = new AbortController()
    draw()
    let complete = false
    try {
      for await (const o of stream('POST', '/links/import', { query: { dry_run: dry ? 'true' : null }, body: file, accept: 'application/x-ndjson', headers: { 'Content-Type': 'application/octet-stream' }, signal: stop.signal })) {
        if (o.summary) {
          counts = o.summary
          complete = true
        } else if (o.result) {
          counts[/** @type {Outcome} */ (o).result]++
          if (o.result === 'created' && !dry) stored = true
          if (outcomes.length < mostShown && (o.result !== 'created' || outcomes.length < 20)) outcomes.push(o)
        } else if (o.detail) {
          throw new Error(o.detail)
        }
        if (Date.now() - drawn > 100) {
          drawn = Date.now()
          draw()
        }
      }
      if (!complete) throw new Error(t('import.cut_off'))
      step = dry ? 'tried' : 'stored'
      app.announce(kinds.map((k) => `${t(`import.${k}${dry ? '_dry' : ''}`)}: ${counts[k]}`).join(', '))
    } catch (err) {
      if (stop.signal.aborted) return
      error = explain(err)
      step = 'choose'
    }
    draw()
  }

  /** @param {File | undefined | null} f */
  function take(f) {
    if (!f) return
    file = f
    run(true)
  }

  /** @param {DragEvent} e */
  function drop(e) {
    e.preventDefault()
    take(e.dataTransfer?.files[0])
  }

  const choose = () => html`
    <p class="muted">${t('import.forms')}</p>
    <label class="drop" @dragover=${(/** @type {Event} */ e) => e.preventDefault()} @drop=${drop}>
      ${icon('upload')}<span>${t('import.choose')}</span>
      <input type="file" accept=".csv,.ndjson,.jsonl,.json,.txt,text/csv,application/x-ndjson" @change=${(/** @type {Event} */ e) => take(/** @type {HTMLInputElement} */ (e.currentTarget).files?.[0])}>
    </label>
    ${error ? html`<div class="trouble" role="alert">${icon('warn')}<p>${file?.name}: ${error}</p></div>` : nothing}
    <p class="muted small">${t('import.safe')}</p>`

  /** @param {(v?: boolean) => void} close */
  const result = (close) => {
    const dry = step === 'trying' || step === 'tried'
    const busy = step === 'trying' || step === 'storing'
    return html`
      <p class="ellipsis" title=${file?.name ?? ''}>${t(`import.${step}`)} <strong>${file?.name}</strong></p>
      <dl class="counts" aria-busy=${String(busy)}>
        ${kinds.map((k) => html`<div class="count count-${k}"><dt>${t(`import.${k}${dry ? '_dry' : ''}`)}</dt><dd class="figure">${app.format.n(counts[k])}</dd></div>`)}
      </dl>
      ${outcomes.length === 0 ? nothing : html`
        <div class="outcomes" tabindex="0" role="region" aria-label=${t('import.rows')}>
          <table><thead><tr><th class="number">${t('import.line')}</th><th>${t('import.code')}</th><th>${t('import.what')}</th></tr></thead>
            <tbody>${outcomes.map((o) => html`<tr><td class="number">${app.format.n(o.line)}</td><td class="mono break">${o.code}</td>
              <td class="break"><span class="state ${{ created: 'state-good', exists: '', conflict: 'state-warn', invalid: 'state-bad' }[o.result]}">${t(`import.${o.result}${dry ? '_dry' : ''}`)}</span> ${o.detail ?? ''}</td></tr>`)}</tbody></table>
        </div>`}
      <div class="actions">
        ${busy ? html`<button type="button" class="button" @click=${() => { stop.abort(); step = 'choose'; draw() }}>${t('ui.cancel')}</button>` : nothing}
        ${step === 'tried' ? html`
          <button type="button" class="button" @click=${() => { step = 'choose'; draw() }}>${t('import.other')}</button>
          <button type="button" class="button button-primary" ?disabled=${counts.created === 0} @click=${() => run(false)}>${t('import.do', { n: counts.created })}</button>` : nothing}
        ${step === 'stored' ? html`<button type="button" class="button button-primary" @click=${() => close()}>${t('import.done')}</button>` : nothing}
      </div>`
  }

  await dialog((/** @type {(v?: boolean) => void} */ close) => html`<div class="stack import">${step === 'choose' ? choose() : result(close)}</div>`, { title: t('links.import'), wide: true, on: (d) => (draw = d) })
  stop.abort()
  return stored
}
