// Choosing a time zone, of all that the browser knows.

import { t } from '../texts.js'
import { isZone } from '../ui/range.js'
import { field, html } from '../ui.js'

/** @param {import('../app.js').App} app @param {string} present @returns {Promise<string | undefined>} undefined if it stays */
export async function pickZone(app, present) {
  const own = Intl.DateTimeFormat().resolvedOptions().timeZone
  const zones = ['UTC', own, ...Intl.supportedValuesOf('timeZone')].filter((z, i, all) => all.indexOf(z) === i)
  /** @type {string | null} */
  let error = null
  let again = () => {}
  return app.dialog((/** @type {(v?: string) => void} */ close) => html`
    <form class="stack" @submit=${(/** @type {SubmitEvent} */ e) => {
      e.preventDefault()
      const zone = String(new FormData(/** @type {HTMLFormElement} */ (e.target)).get('zone')).trim().replaceAll(' ', '_')
      const known = zones.find((z) => z.toLowerCase() === zone.toLowerCase())
      if (known || isZone(zone)) return close(known ?? zone)
      error = t('clicks.zone_wrong')
      again()
    }}>
      ${field({
        id: 'zone', label: t('clicks.zone_name'), hint: t('clicks.zone_hint', { own }), error,
        control: html`<input id="zone" name="zone" list="zones" autocomplete="off" autofocus required aria-describedby="zone-about" aria-invalid=${error ? 'true' : 'false'} .value=${present}
          @focus=${(/** @type {Event} */ e) => /** @type {HTMLInputElement} */ (e.target).select()}><datalist id="zones">${zones.map((z) => html`<option value=${z}></option>`)}</datalist>`,
      })}
      <div class="actions"><button type="button" class="button" @click=${() => close()}>${t('ui.cancel')}</button>
        <button class="button button-primary">${t('clicks.zone_take')}</button></div>
    </form>`, { title: t('clicks.zone_title'), on: (draw) => (again = draw) })
}
