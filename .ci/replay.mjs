// Looks at the pages of the example `replay` as their reader does, in a real Chromium. By `.ci/run replay`:
// node .ci/replay.mjs FOLDER, in which there are the pages and node_modules.

import { createRequire } from "node:module"
import { readFileSync, readdirSync, writeFileSync } from "node:fs"
import assert from "node:assert/strict"
import path from "node:path"

const folder = path.resolve(process.argv[2])
const require = createRequire(path.join(folder, "package.json"))
const { chromium } = require("playwright-core")
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8")
const sizes = { wide: { width: 1280, height: 800 }, narrow: { width: 390, height: 844 } }
const flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-lcd-text"]
const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: flags })

// Opens a page. Whatever goes wrong on it, or is asked of the network, ends this program.
async function open(name, hash = "", options = {}) {
  const page = await browser.newPage({ viewport: sizes.wide, ...options })
  const url = `file://${folder}/${name}.html`
  const fail = why => { console.error(`${name}: ${why}`); process.exit(1) }
  page.on("console", message => fail(`${message.type()}: ${message.text()}`))
  page.on("pageerror", error => fail(error.stack))
  page.on("request", request => request.url().split("#")[0] == url || fail(`asks for ${request.url()}`))
  await page.goto(url + hash)
  page.run = JSON.parse(await page.locator("#run").textContent())
  return page
}

// The step that everything on the page agrees on, once it has settled.
async function at(page, step) {
  const hasSettled = step => location.hash == `#step-${step}` && document.querySelector("#live").textContent.startsWith(`Step ${step} `)
  await page.waitForFunction(hasSettled, step)
  const [time, , thread, words, says] = page.run.steps[step - 1]
  const live = await page.locator("#live").textContent()
  const due = `Step ${step} of ${page.run.steps.length}, ${time.toFixed(3)} ms: ${thread || "This"} ${says}.`
  assert.equal(live.slice(0, due.length), due)
  const current = page.locator("[role=option][aria-selected=true]")
  assert.equal(await current.count(), 1)
  assert.ok((await current.textContent()).includes(words))
  assert.equal(await page.locator("#calls").getAttribute("aria-activedescendant"), await current.getAttribute("id"))
  assert.equal(await page.locator("#time").getAttribute("aria-valuenow"), `${step}`)
  const inside = await current.evaluate(call => {
    const [one, all] = [call.getBoundingClientRect(), call.parentElement.getBoundingClientRect()]
    return all.top <= one.top && one.bottom <= all.bottom
  })
  assert.ok(inside, `step ${step} is in sight`)
}

// What a reader without a mouse does.
async function keys(name) {
  const page = await open(name)
  const last = page.run.steps.length
  await at(page, 1)
  await page.keyboard.press("End")
  await at(page, last)
  await page.keyboard.press("ArrowRight")
  await page.keyboard.press("ArrowUp")
  await at(page, last - 1)
  await page.keyboard.press("Home")
  await page.keyboard.press("ArrowLeft")
  for (const key of ["ArrowRight", "ArrowDown", "ArrowRight", "ArrowLeft"]) await page.keyboard.press(key)
  await at(page, 3)
  await page.keyboard.press("Tab")
  await page.keyboard.press("Enter") // the first button
  await at(page, 1)
  // All that can be reached has a visible focus.
  for (let n = 0; n < 12; n++) {
    await page.keyboard.press("Tab")
    const width = await page.evaluate(() => parseFloat(getComputedStyle(document.activeElement).outlineWidth))
    assert.ok(width >= 1)
  }
  await page.close()
}

async function playing(name) {
  const page = await open(name, "#step-2")
  await page.selectOption("#slower", "1")
  await page.locator("h1").click()
  await page.keyboard.press("Space")
  await at(page, page.run.steps.length)
  assert.equal(await page.locator("#play").textContent(), "Play")
  // From the beginning again, and slowly enough to be stopped.
  await page.selectOption("#slower", "10000")
  await page.locator("#play").click()
  await page.waitForFunction(() => now < steps.length - 1)
  assert.equal(await page.locator("#play").textContent(), "Pause")
  await page.keyboard.press("ArrowRight")
  assert.equal(await page.locator("#play").textContent(), "Play")
  await page.close()
}

async function mouse(name) {
  const page = await open(name)
  const last = page.run.steps.length
  await page.locator(".call").nth(4).click()
  await at(page, 5)
  const box = await page.locator("#time").boundingBox()
  await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2)
  await page.mouse.down()
  await page.mouse.move(box.x + box.width + 100, box.y + box.height / 2, { steps: 5 })
  await page.mouse.up()
  await at(page, last)
  await page.evaluate(step => { location.hash = `step-${step}` }, 4)
  await at(page, 4)
  await page.evaluate(step => { location.hash = `step-${step}` }, 99999999)
  await at(page, last)
  await page.close()
}

// A name that is pointed at, or has the focus, is marked everywhere.
async function marking(name) {
  const page = await open(name)
  const step = page.run.steps.findIndex(step => step[5].includes("arm")) + 1
  await page.evaluate(step => { location.hash = `step-${step}` }, step)
  await at(page, step)
  const marked = () => page.evaluate(() => {
    const of = ids => ids.filter(id => getComputedStyle(id).textDecorationLine == "underline").map(id => id.dataset.id)
    return of([...document.querySelectorAll("span[data-id]")])
  })
  assert.deepEqual(await marked(), [])
  for (const act of ["hover", "focus"]) {
    const item = page.locator("li.new").last()
    await item[act]()
    const ids = await marked(), all = await page.locator(`span[data-id="${ids[0]}"]`).count()
    assert.equal(ids.length, all)
    assert.ok(all >= 3 && new Set(ids).size == 1, `${act}: ${ids}`)
    await page.locator("h1").hover()
    await page.locator("#play").focus()
  }
  // And the focus stays where it is.
  await page.locator("li").first().focus()
  const key = () => page.evaluate(() => document.activeElement.dataset.key)
  const before = await key()
  await page.keyboard.press("ArrowRight")
  assert.equal(await key(), before)
  await page.close()
}

async function explaining(name) {
  const page = await open(name)
  await page.locator("#switch").click()
  assert.equal(await page.locator("#switch").getAttribute("aria-checked"), "true")
  const seen = new Set()
  for (const [at, step] of page.run.steps.entries()) {
    for (const mark of step[5].split(" ").filter(mark => mark)) {
      const [says, file, line] = page.run.marks[mark]
      assert.ok(says && file && line, `[${mark}] has a sentence and a place`)
      if (seen.has(mark)) continue
      seen.add(mark)
      await page.evaluate(at => go(at), at)
      const text = await page.locator("#explain").textContent()
      assert.ok(text.includes(`[${mark}] ${says}: src/${file}: ${line}`), text)
    }
  }
  assert.ok(seen.size >= 6, [...seen])
  await page.close()
}

// No step moves anything but what is in the lists, and however one comes to a step, it looks the same.
async function steadiness(name, size) {
  const page = await open(name, "", { viewport: sizes[size] })
  await page.locator("#switch").click()
  const look = step => page.evaluate(step => {
    go(step)
    const boxes = document.querySelectorAll("h1, #calls, #says, #state, #time, section, ul")
    const { scrollTop } = document.querySelector("#state")
    const places = [...boxes].map(box => {
      const { x, y, width, height } = box.getBoundingClientRect()
      return [x, y + (box.matches("#state *") ? scrollTop : 0), width, height].map(Math.round)
    })
    const { scrollWidth, scrollHeight } = document.documentElement
    return { places: JSON.stringify(places), state: document.querySelector("#state").innerHTML, scrollWidth, scrollHeight }
  }, step)
  const { length } = page.run.steps, looks = []
  for (let step = 0; step < Math.min(length, 300); step++) looks.push(await look(step))
  for (const { places, scrollWidth, scrollHeight } of looks) {
    assert.equal(places, looks[0].places)
    assert.deepEqual([scrollWidth, scrollHeight], [sizes[size].width, sizes[size].height])
  }
  for (let step = looks.length - 1; step >= 0; step -= 7) assert.equal((await look(step)).state, looks[step].state)
  await page.close()
}

async function accessibility(name) {
  for (const colorScheme of ["light", "dark"]) {
    for (const size in sizes) {
      const page = await open(name, "", { viewport: sizes[size], colorScheme })
      const step = Math.ceil(page.run.steps.length / 2)
      await page.locator("#switch").click()
      await page.evaluate(at => go(at - 1), step)
      await at(page, step)
      await page.evaluate(axe)
      const { violations, passes } = await page.evaluate(() => axe.run())
      const what = violations.map(it => `${it.id}: ${it.help}: ${it.nodes[0].html} ${it.nodes[0].failureSummary}`)
      assert.deepEqual(what, [], `${name}, ${colorScheme}, ${size}`)
      assert.ok(passes.length > 15)
      await page.screenshot({ path: `${folder}/${name}-${colorScheme}-${size}.png` })
      await page.close()
    }
  }
}

async function reducedMotion(name) {
  const page = await open(name, "", { reducedMotion: "reduce" })
  await page.selectOption("#slower", "1")
  await page.locator("#play").click()
  const stops = new Set()
  while (await page.locator("#play").textContent() == "Pause") stops.add(await page.locator("#cursor").getAttribute("style"))
  const steps = await page.evaluate(() => steps.map(step => { drawCursor(step[0]); return document.querySelector("#cursor").getAttribute("style") }))
  for (const stop of stops) assert.ok(steps.includes(stop), stop)
  await page.close()
}

// Each step must be drawn before the next frame. What counts is the time of the processor, because others may use it too.
async function speed(name) {
  const page = await open(name)
  const { length } = page.run.steps
  assert.ok(length >= 10_000)
  const tools = await page.context().newCDPSession(page)
  await tools.send("Performance.enable", { timeDomain: "threadTicks" })
  const spent = async () => (await tools.send("Performance.getMetrics")).metrics.find(it => it.name == "TaskDuration").value * 1000
  for (const [what, jump, frames] of [["step", 1, 1], ["jump", 7919, 2]]) {
    const before = await spent(), COUNT = 200
    await page.evaluate(([jump, count]) => {
      const draw = n => {
        go(n * jump % steps.length)
        document.body.getBoundingClientRect()
      }
      for (let n = 0; n < count; n++) draw(n)
    }, [jump, COUNT])
    const each = (await spent() - before) / COUNT
    console.log(`${length} calls: a ${what} takes ${each.toFixed(1)} ms`)
    assert.ok(each < frames * 1000 / 60, "60 frames in a second")
  }
  assert.ok(await page.locator(".call").count() < 60)
  await page.close()
}

// The picture of the README: as it was made once, but for the odd pixel of another version's letters.
async function picture(name, due) {
  const size = { width: 1280, height: 680 }
  const page = await open(name, "#step-110", { viewport: size })
  await at(page, 110)
  const png = await page.screenshot({ path: `${folder}/replay.png` })
  const differing = await page.evaluate(async ([{ width, height }, ...pngs]) => {
    const pixels = pngs.map(async png => {
      const bytes = Uint8Array.from(atob(png), char => char.charCodeAt())
      const image = await createImageBitmap(new Blob([bytes]))
      const pen = new OffscreenCanvas(width, height).getContext("2d")
      pen.drawImage(image, 0, 0)
      return pen.getImageData(0, 0, width, height).data
    })
    const [one, other] = await Promise.all(pixels)
    let n = 0
    for (let at = 0; at < one.length; at += 4) n += [0, 1, 2].some(i => Math.abs(one[at + i] - other[at + i]) > 64)
    return n / (width * height)
  }, [size, ...[png, readFileSync(due)].map(bytes => bytes.toString("base64"))])
  console.log(`README's picture: ${(differing * 100).toFixed(2)} of 100 pixels differ`)
  assert.ok(differing < 0.01, `${due} is not what is drawn now, which is ${folder}/replay.png`)
  await page.close()
}

async function strangeText(name) {
  const page = await open(name)
  assert.equal(await page.locator("img, b b, script").count(), 2) // our two scripts
  assert.ok((await page.locator("#calls").textContent()).includes("<img src=x onerror=alert(1)>"))
  await page.close()
}

const small = ["chapter-4-epoll", "chapter-4-kqueue", "chapter-4-IOCP"]
for (const name of [...small, "demo"]) {
  for (const look of [keys, playing, mouse, marking, explaining, accessibility]) await look(name)
  for (const size in sizes) await steadiness(name, size)
  console.log(`${name}: ${readFileSync(`${folder}/${name}.html`).length} bytes`)
}
await reducedMotion("demo")
await strangeText("strange")
await speed("many")
await picture("readme", ".github/replay.png")
assert.ok(readFileSync(`${folder}/demo.html`).length < 300_000)
await browser.close()
