// What this browser remembers (theme, language, time zone, what new links begin with), and who is signed in.

import { call } from '../api.js'
import { format, languages, t } from '../texts.js'
import { announce, chip, field, html, nothing, render, skeleton, toast, explain, trouble } from '../ui.js'

/** @typedef {{id: string, name: string, created_at: string, expires_at: string, browser?: string, current?: boolean}} Session */

const day = 24 * 60 * 60
const themes = ['system', 'light', 'dark']
const statuses = ['302', '301', '307', '308']

/** @param {import('../app.js').App} app @param {HTMLElement} root */
export default async function open(app, root) {
  const { settings } = app
  /** @type {Session[] | null} */
  let sessions = null
  /** @type {unknown} */
  let failed = null

  const draw = () => {
    app.title(t('nav.settings'))
    render(html`
      <header class="section-head"><h1>${t('nav.settings')}</h1></header>
      <div class="settings">
        <section class="card" aria-labelledby="settings-look">
          <h2 id="settings-look">${t('settings.look')}</h2>
          <p class="muted">${t('settings.here')}</p>
          <fieldset class="field settings-theme">
            <legend>${t('settings.theme')}</legend>
            <div class="segments">${themes.map((name) => html`
              <label class="segment"><input type="radio" name="theme" value=${name} .checked=${settings.theme === name}
                @change=${() => set('theme', name)}><span>${t(`settings.theme_${name}`)}</span></label>`)}</div>
          </fieldset>
          ${field({
            id: 'language', label: t('settings.language'),
            control: select('language', [['', t('settings.as_browser')], ...Object.entries(languages)], settings.language, (v) => set('language', v)),
          })}
          ${field({
            id: 'zone', label: t('settings.zone'), hint: t('settings.zone_hint', { now: format.dateTime(new Date()) }),
            control: select('zone', [['', t('settings.as_browser')], ...zones().map((z) => /** @type {[string, string]} */ ([z, z.replaceAll('_', ' ')]))], settings.timeZone, (v) => set('timeZone', v)),
          })}
          <label class="check"><input type="checkbox" .checked=${settings.keys} @change=${(/** @type {Event} */ e) => set('keys', /** @type {HTMLInputElement} */ (e.target).checked)}>
            <span>${t('settings.keys')}</span></label>
        </section>
        ${app.can('create') ? defaults() : nothing}
        <section class="card settings-sessions" aria-labelledby="settings-sessions">
          <h2 id="settings-sessions">${t('settings.sessions')}</h2>
          <div class="row"><span class="muted">${t('settings.you', { name: app.session.name })}</span>${app.session.scopes.map((s) => chip(s))}</div>
          ${failed ? trouble(failed, load) : sessions ? list(sessions) : skeleton(3)}
        </section>
      </div>`, root)
  }

  /** @param {'theme' | 'language' | 'timeZone' | 'keys' | 'defaults'} name @param {any} value */
  const set = async (name, value) => {
    await settings.set(name, value)
    draw()
    announce(t('settings.saved'))
  }

  /** @param {string} id @param {[string, string][]} options @param {string} value @param {(value: string) => void} chosen */
  const select = (id, options, value, chosen) => html`
    <select id=${id} aria-describedby="${id}-about" @change=${(/** @type {Event} */ e) => chosen(/** @type {HTMLSelectElement} */ (e.target).value)}>
      ${options.map(([v, text]) => html`<option value=${v} .selected=${v === value}>${text}</option>`)}
    </select>`

  const defaults = () => {
    const d = settings.defaults
    /** @param {string} name @param {any} value undefined removes it */
    const put = (name, value) => set('defaults', JSON.parse(JSON.stringify({ ...d, [name]: value })))
    return html`
      <section class="card" aria-labelledby="settings-defaults">
        <h2 id="settings-defaults">${t('settings.defaults')}</h2>
        <p class="muted">${t('settings.defaults_text')}</p>
        ${field({
          id: 'status', label: t('settings.status'),
          control: select('status', statuses.map((s) => [s, t(`settings.status_${s}`)]), String(d.status ?? 302), (v) => put('status', v === '302' ? undefined : Number(v))),
        })}
        ${field({
          id: 'days', label: t('settings.days'), hint: t('settings.days_hint'),
          control: html`<input id="days" type="number" min="1" max="3650" step="1" inputmode="numeric" aria-describedby="days-about" .value=${d.ttl ? String(d.ttl / day) : ''}
            @change=${(/** @type {Event} */ e) => {
              const input = /** @type {HTMLInputElement} */ (e.target)
              if (input.reportValidity()) put('ttl', input.value === '' ? undefined : Number(input.value) * day)
            }}>`,
        })}
        ${field({
          id: 'tags', label: t('settings.tags'), hint: t('settings.tags_hint'),
          control: html`<input id="tags" autocomplete="off" spellcheck="false" aria-describedby="tags-about" .value=${(d.tags ?? []).join(', ')}
            @change=${(/** @type {Event} */ e) => {
              const tags = /** @type {HTMLInputElement} */ (e.target).value.split(',').map((s) => s.trim()).filter((s) => s !== '')
              put('tags', tags.length > 0 ? [...new Set(tags)] : undefined)
            }}>`,
        })}
        <label class="check"><input type="checkbox" .checked=${d.forward_query === true}
          @change=${(/** @type {Event} */ e) => put('forward_query', /** @type {HTMLInputElement} */ (e.target).checked || undefined)}><span>${t('settings.forward_query')}</span></label>
      </section>`
  }

  /** @param {Session[]} all */
  const list = (all) => html`
    <ul class="sessions">${all.map((s) => html`
      <li class="session">
        <div>
          <div class="row"><strong>${s.browser || t('settings.browser_unknown')}</strong>
            ${app.can('admin') ? html`<span class="muted">${s.name}</span>` : nothing}
            ${s.current ? html`<span class="state state-good">${t('settings.current')}</span>` : nothing}</div>
          <p class="muted small">${t('settings.since', { since: format.dateTime(s.created_at), until: format.dateTime(s.expires_at) })}</p>
        </div>
        ${s.current
          ? html`<button type="button" class="button" @click=${app.signOut}>${t('nav.out')}</button>`
          : html`<button type="button" class="button" aria-label=${t('settings.end_which', { what: s.browser || t('settings.browser_unknown'), name: s.name })}
              @click=${() => end(s)}>${t('settings.end')}</button>`}
      </li>`)}
    </ul>
    <p class="muted small">${t('settings.sessions_text')}</p>`

  /** @param {Session} s */
  const end = async (s) => {
    try {
      await call('DELETE', `/dashboard/sessions/${encodeURIComponent(s.id)}`)
      toast(t('settings.ended'), { kind: 'good' })
    } catch (err) {
      // It may have ended by itself: what counts is the list.
      if (/** @type {any} */ (err).status !== 404) return void toast(explain(err), { kind: 'bad' })
    }
    await load()
  }

  const load = async () => {
    try {
      sessions = (await call('GET', '/dashboard/sessions', { signal: app.signal })).data.sessions
      failed = null
    } catch (err) {
      if (app.signal.aborted) return
      failed = err
    }
    draw()
  }

  draw()
  load()
  return { update: draw, back: load }
}

/** All time zones that the browser knows, UTC first. */
const zones = () => ['UTC', ...Intl.supportedValuesOf('timeZone').filter((z) => z !== 'UTC')]
