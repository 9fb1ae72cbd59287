// Signing in with an API key. The page starts here if nobody is signed in; `again` asks in a dialog when a
// session has ended, so that the page under it, and what was typed there, stays.

import { Away, call } from '../api.js'
import { t } from '../texts.js'
import { dialog, explain, field, focus, html, icon, nothing, render } from '../ui.js'

/** @typedef {import('../app.js').App} App */

/** Resolves once somebody is signed in. @param {App} app @param {HTMLElement} body @param {unknown} failed why what was tried before did not work
 * @returns {Promise<void>} */
export default function open(app, body, failed) {
  const page = document.createElement('main')
  page.className = 'signin'
  body.replaceChildren(page)
  app.title(t('signin.title'))
  return new Promise((done) => {
    const finish = () => {
      page.remove()
      done()
    }
    // Without an answer nobody knows whether somebody is signed in.
    let away = failed instanceof Away
    const f = form(app, finish, away ? null : failed)
    const draw = () => render(html`
      <div class="signin-card">
        <div class="brand">${icon('flake')}<span>Snowlink</span></div>
        ${away ? html`<h1>${t('away.title')}</h1><p role="status">${t('away.waits')}</p>` : html`<h1>${t('signin.title')}</h1>${f.piece()}`}
      </div>`, page)
    f.draw = draw
    // A session may be there, and only the service was not.
    const look = async () => {
      try {
        app.session = (await call('GET', '/dashboard/session')).data
        finish()
      } catch (err) {
        away = err instanceof Away
        f.wrong(null)
        if (!away) focus(page, 'input')
        else setTimeout(look, 1500)
      }
    }
    if (away) setTimeout(look, 1500)
    draw()
    focus(page, 'input')
  })
}

/** @param {App} app */
export async function again(app) {
  const { name: before, scopes } = app.session
  const f = form(app, () => {}, null)
  for (;;) {
    const signedIn = await dialog((close) => {
      f.done = () => close(true)
      return html`<div class="stack"><p>${t('signin.again', { name: before })}</p>${f.piece()}</div>`
    }, { title: t('signin.title'), on: (draw) => (f.draw = draw) })
    if (signedIn) break
  }
  // Another key may do other things and has other links. What was typed is its owner's alone.
  if (app.session.name !== before) sessionStorage.clear()
  if (app.session.name !== before || app.session.scopes.join() !== scopes.join()) location.reload()
}

/** @param {App} app @param {() => void} done @param {unknown} failed */
function form(app, done, failed) {
  let busy = false
  let shown = false
  /** @type {string | null} */
  let error = failed ? (/** @type {any} */ (failed).status === 401 ? t('signin.token') : say(failed)) : null
  const f = {
    done,
    draw: () => {},
    /** @param {unknown} err */
    wrong(err) {
      error = err ? say(err) : null
      f.draw()
    },
    piece: () => html`
      <form class="stack" @submit=${submit}>
        ${field({
          id: 'key', label: t('signin.key'), error, hint: t('signin.hint'),
          control: html`<div class="input-group">
            <input id="key" name="key" type=${shown ? 'text' : 'password'} autocomplete="current-password" spellcheck="false" autocapitalize="off"
              autofocus aria-describedby="key-about" aria-invalid=${error ? 'true' : nothing}>
            <button type="button" class="button" aria-pressed=${String(shown)} @click=${() => { shown = !shown; f.draw() }}>${t('signin.show')}</button>
          </div>`,
        })}
        <button class="button button-primary" ?disabled=${busy}>${busy ? t('signin.busy') : t('signin.do')}</button>
      </form>`,
  }
  /** @param {SubmitEvent} e */
  async function submit(e) {
    e.preventDefault()
    const input = /** @type {HTMLInputElement} */ (/** @type {HTMLFormElement} */ (e.currentTarget).elements.namedItem('key'))
    const key = input.value.trim()
    if (busy) return
    if (key === '') {
      error = t('signin.empty')
      f.draw()
      input.focus()
      return
    }
    busy = true
    error = null
    f.draw()
    try {
      app.session = (await call('POST', '/dashboard/session', { body: { key } })).data
      input.value = ''
      f.done()
    } catch (err) {
      error = say(err)
      input.focus()
      input.select()
    } finally {
      busy = false
      f.draw()
    }
  }
  return f
}

/** @param {any} err */
function say(err) {
  if (err.status === 401) return t('signin.unknown')
  if (err instanceof Away) return t('signin.away')
  return explain(err)
}
