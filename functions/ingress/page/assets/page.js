// What the page does beyond a plain form: preview, drop, paste, camera, and answers without leaving the page.
//
// It writes no markup and no sentences. What it shows are templates of the page (sections, notes) and the section that
// the server answers. What is asked is what the form has in it, so the form is the only state. While models are waited
// for, the section says where to look and when; the page's address is that one then, so that it can be loaded again.

const find = (selector, root = document) => root.querySelector(selector);
const form = find('#ask');
const file = find('#image');
const photo = find('#photo');
const address = find('#url');
const zone = find('#zone');
const preview = find('#preview');
const facts = find('[data-part=facts]');
const remark = find('[data-part=remark]');
const status = find('#status');
const go = find('#go');
const maxBytes = Number(form.dataset.maxBytes);
const coldAfter = 2000; // milliseconds until a slow answer is explained; the server has the same
const looking = 20000; // milliseconds until a look at the answers is given up, and tried again
const longestRest = 15000; // milliseconds between two looks while the server cannot be reached,
const longestBusy = 60000; // and while it says that it is busy, whatever it says
const outOfSight = 300000; // milliseconds until a page that nobody looks at does not look for answers either

let stop = () => {}; // ends the question that is under way
let tick = () => {}; // brings the time that is shown up to date

// ---- What is shown

const note = (name) => find(`template[data-note=${name}]`).content.textContent;

const say = (text) => { status.textContent = text; };

// tell shows a note under the picture and announces it.
function tell(name) {
  remark.textContent = note(name);
  remark.hidden = false;
  say(note(name));
}

const clone = (name) => find(`template[data-section=${name}]`).content.cloneNode(true).firstElementChild;

// fit gives the page the title and the address of what it shows. Without anything in the form there is nothing to try again.
function fit(section) {
  if (!file.files[0] && !address.value) find('[data-do=retry]', section)?.remove();
  document.title = section.dataset.title;
  const path = section.dataset.address ?? '/home';
  if (location.pathname !== path) history.replaceState(null, '', path);
}

// show puts a section in the place of the present one.
function show(section) {
  find('#answers').replaceWith(section);
  fit(section);
  tick();
  return section;
}

// announce says what is to be said of some elements.
function announce(...elements) {
  const said = elements.flatMap((element) => [...element.querySelectorAll('[data-say]')]);
  say(said.map((words) => words.textContent.replace(/\s+/g, ' ').trim()).join('. ').replaceAll('.. ', '. '));
}

// lead shows a section and takes the reader there: its words are announced, its heading has the focus.
function lead(section) {
  show(section);
  announce(section);
  find('h2', section).focus({ preventScroll: true });
  const top = section.getBoundingClientRect().top;
  if (top < 0 || top > innerHeight / 2) section.scrollIntoView();
}

// ---- What is asked about

function showPreview(source) {
  URL.revokeObjectURL(preview.src);
  preview.hidden = !source;
  if (source) preview.src = source;
  else preview.removeAttribute('src');
}

// changed brings the page in line with the form after its picture changed. Answers to another picture go away.
function changed() {
  stop();
  remark.hidden = true;
  showFile();
  const refusal = file.files[0] && refuse(file.files[0]);
  if (refusal) lead(clone(refusal));
  else show(clone(unasked()));
}

// unasked names the section of a form that waits to be sent.
function unasked() {
  return file.files[0] || address.value ? 'ready' : 'empty';
}

function showFile() {
  const picture = file.files[0];
  showPreview(picture && URL.createObjectURL(picture));
  zone.dataset.shows = picture ? 'picture' : '';
  describe();
}

function describe(...more) {
  const picture = file.files[0];
  facts.hidden = !picture;
  if (!picture) return;
  const bytes = picture.size < 1e6 ? `${Math.ceil(picture.size / 1e3)} kB` : `${(picture.size / 1e6).toFixed(1)} MB`;
  facts.textContent = [picture.name, bytes, ...more].join(' · ');
}

// refuse names the problem with a file that need not be sent to know that it will not do. A file of no known type may
// be a picture: the server looks inside.
function refuse(picture) {
  if (picture.type && !picture.type.startsWith('image/')) return 'not-a-picture';
  if (picture.size > maxBytes) return 'too-large';
  return '';
}

// choose puts a file into the form, as if it had been chosen there. Without one the form's picture is taken out.
function choose(picture) {
  const files = new DataTransfer();
  if (picture) {
    files.items.add(picture);
    address.value = '';
  }
  file.files = files.files;
  changed();
}

function takeFiles(files) {
  choose(files[0]);
  if (files.length > 1) tell('first');
  else if (!refuse(files[0])) say(facts.textContent);
}

function takeAddress(url) {
  address.value = url;
  choose();
}

// shrink makes the picture small enough to be sent.
async function shrink() {
  const original = file.files[0];
  let bitmap;
  try {
    bitmap = await createImageBitmap(original);
  } catch {
    tell('stubborn');
    return;
  }
  for (let side = 4096; side >= 256; side /= 2) {
    const scale = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
    const canvas = document.createElement('canvas');
    canvas.width = Math.max(1, Math.round(bitmap.width * scale));
    canvas.height = Math.max(1, Math.round(bitmap.height * scale));
    const paint = canvas.getContext('2d');
    paint.fillStyle = 'white'; // as the server does with what is transparent
    paint.fillRect(0, 0, canvas.width, canvas.height);
    paint.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    const smaller = await new Promise((done) => { canvas.toBlob(done, 'image/jpeg', 0.9); });
    if (smaller && smaller.size <= maxBytes) {
      choose(new File([smaller], original.name.replace(/\.\w+$/, '') + '.jpg', { type: smaller.type }));
      tell('smaller');
      go.focus();
      return;
    }
  }
  tell('stubborn');
}

// ---- Asking

// send posts the form and resolves with the section that came back, or with null when something else did. It is not
// fetch, because only this tells how much has been sent.
function send(onProgress, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open('POST', '/home?fragment=answers');
    request.responseType = 'document';
    request.upload.onprogress = (event) => onProgress(event.loaded / event.total);
    request.upload.onload = () => onProgress(1);
    request.onload = () => resolve(find('#answers', request.response ?? document.createDocumentFragment()));
    request.onerror = reject;
    request.onabort = reject;
    signal.addEventListener('abort', () => request.abort());
    request.send(new FormData(form));
  });
}

async function ask() {
  const refusal = file.files[0] && refuse(file.files[0]);
  if (refusal) {
    lead(clone(refusal));
    return;
  }
  stop();
  const working = clone('working');
  const asked = new FormData(form).getAll('model');
  for (const card of working.querySelectorAll('[data-model]')) {
    if (!asked.includes(card.dataset.model)) card.remove();
  }
  lead(working);
  const signal = wait(0);

  const progress = find('[data-part=progress]', working);
  const onProgress = (part) => {
    if (part < 1) {
      progress.value = part;
    } else {
      progress.removeAttribute('value');
      find('[data-part=step]', working).textContent = note('waiting');
    }
  };
  let section;
  try {
    section = await send(onProgress, signal) ?? clone('strange-answer');
  } catch {
    section = clone('offline');
  }
  if (signal.aborted) return;
  const seen = find('[data-seen]', section);
  if (seen) {
    showPreview(seen.src);
    zone.dataset.shows = 'picture';
  }
  lead(section);
  if (section.dataset.again) follow(section, signal);
  else stop();
}

// wait begins to wait for answers to a question that was asked so many milliseconds ago: the seconds pass, and what takes
// long is explained. The signal that it returns ends with the waiting, which stop ends.
function wait(elapsed) {
  const began = performance.now() - elapsed;
  const cancel = new AbortController();
  let cold = elapsed >= coldAfter;
  tick = () => {
    const ms = performance.now() - began;
    const seconds = Math.floor(ms / 1000);
    const passed = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`;
    for (const clock of document.querySelectorAll('#answers [data-part=elapsed]')) clock.textContent = passed;
    const text = find('#answers [data-part=cold]');
    if (!text || ms < coldAfter) return;
    text.hidden = false;
    if (!cold) say(text.textContent);
    cold = true;
  };
  const ticking = setInterval(tick, 1000);
  stop = () => {
    clearInterval(ticking);
    cancel.abort();
    go.removeAttribute('aria-disabled');
    stop = () => {};
    tick = () => {};
  };
  go.setAttribute('aria-disabled', 'true');
  return cancel.signal;
}

// follow looks for the answers that a section waits for until all are there, as often as the server wants it.
async function follow(section, signal) {
  let pause = Number(section.dataset.again) * 1000;
  while (section.dataset.again) {
    await rest(pause, signal);
    if (signal.aborted) return;
    const { next, after } = await look(section.dataset.address, signal);
    if (signal.aborted) return;
    if (!next || next.dataset.state === 'unknown') {
      lost(section);
      pause = Math.max(Math.min(pause * 2, longestRest), Math.min(after * 1000, longestBusy));
    } else {
      pause = Number(next.dataset.again) * 1000;
      section = renew(section, next);
    }
  }
  stop();
}

// look gets the section at an address: null when none came. After is how many seconds to wait before the next look.
async function look(path, signal) {
  try {
    const response = await fetch(path + '?fragment=answers', { signal: AbortSignal.any([signal, AbortSignal.timeout(looking)]) });
    const after = Number(response.headers.get('Retry-After')) || 0;
    return { next: find('#answers', new DOMParser().parseFromString(await response.text(), 'text/html')), after };
  } catch {
    return { next: null, after: 0 };
  }
}

let hiddenSince = 0;

document.addEventListener('visibilitychange', () => { hiddenSince = performance.now(); });

// rest ends after so many milliseconds, or when a look may be worth it at once: the page is seen again, or the network is
// back. While nobody has looked at the page for long it goes on.
function rest(ms, signal) {
  return new Promise((done) => {
    const over = new AbortController();
    const end = () => {
      clearTimeout(timer);
      over.abort();
      done();
    };
    const seen = () => !document.hidden || performance.now() - hiddenSince < outOfSight;
    const timer = setTimeout(() => { if (seen()) end(); }, ms);
    const options = { signal: over.signal };
    signal.addEventListener('abort', end, options);
    addEventListener('online', end, options);
    document.addEventListener('visibilitychange', () => { if (!document.hidden) end(); }, options);
  });
}

// lost tells, once, that the server cannot be reached.
function lost(section) {
  const step = find('[data-part=step]', section);
  if (!step || step.textContent === note('lost')) return;
  step.textContent = note('lost');
  say(note('lost'));
}

// renew brings a section in line with the next one, and returns the one that is shown then. Cards that are the same stay
// what they are, so that nothing moves, or loses the focus, that did not change.
function renew(section, next) {
  if (!find('[data-model]', section) || !find('[data-model]', next)) {
    lead(next);
    return next;
  }
  const answered = [...next.querySelectorAll('[data-model]:not([data-kind=waiting])')].filter((card) => {
    const old = find(`[data-model="${CSS.escape(card.dataset.model)}"][data-kind=waiting]`, section);
    old?.replaceWith(card);
    return old;
  });
  if (answered.length) announce(...answered);
  if (next.dataset.again) {
    find('[data-part=step]', section).textContent = find('[data-part=step]', next).textContent;
    return section;
  }
  const around = (children) => [...children].filter((child) => !child.matches('h2, [data-part=step], [data-model]'));
  for (const name of ['h2', '[data-part=step]']) find(name, section).textContent = find(name, next).textContent;
  const focused = around(section.children).some((child) => child.contains(document.activeElement));
  around(section.children).forEach((child) => child.remove());
  section.append(...around(next.children));
  Object.assign(section.dataset, next.dataset);
  delete section.dataset.again;
  fit(section);
  if (focused) find('h2', section).focus({ preventScroll: true });
  return section;
}

// forget has the server forget what it was asked.
async function forget(path) {
  const section = find('#answers');
  let gone = false;
  try {
    const response = await fetch(path + '?fragment=answers', { method: 'POST' });
    gone = response.ok || response.status === 404 || response.status === 410;
  } catch { /* it could not be reached */ }
  if (find('#answers') !== section) return; // meanwhile something else was asked
  if (!gone) {
    find('[data-part=step]', section).textContent = note('remembered');
    say(note('remembered'));
    return;
  }
  const waited = section.dataset.again;
  stop();
  show(clone(unasked()));
  say(note(waited ? 'cancelled' : 'forgotten'));
  go.focus();
}

// ---- What a person does

form.addEventListener('submit', (event) => {
  event.preventDefault();
  if (go.getAttribute('aria-disabled') !== 'true') ask();
});

file.addEventListener('change', () => {
  if (file.files.length) address.value = '';
  changed();
});

photo.addEventListener('change', () => {
  if (photo.files.length) choose(photo.files[0]);
  photo.value = ''; // so that the next photograph is a change again
});

address.addEventListener('input', () => choose());

find('#example')?.addEventListener('submit', (event) => {
  event.preventDefault();
  takeAddress(new FormData(event.target).get('url'));
  go.focus();
});

document.addEventListener('submit', (event) => {
  if (event.target.dataset.do !== 'forget') return;
  event.preventDefault();
  forget(new URL(event.target.action).pathname);
});

document.addEventListener('click', (event) => {
  switch (event.target.dataset?.do) {
    case 'remove':
      address.value = '';
      choose();
      file.focus();
      break;
    case 'shrink':
      shrink();
      break;
    case 'cancel':
      stop();
      show(clone('ready'));
      say(note('cancelled'));
      go.focus();
      break;
  }
});

preview.addEventListener('load', () => describe(`${preview.naturalWidth} × ${preview.naturalHeight}`));

preview.addEventListener('error', () => { // a TIFF, say: the browser cannot show it, the server can read it
  preview.hidden = true;
  zone.dataset.shows = 'file';
});

document.addEventListener('paste', (event) => {
  const { files } = event.clipboardData;
  if (files.length) {
    event.preventDefault();
    takeFiles(files);
    return;
  }
  const text = event.clipboardData.getData('text/plain').trim();
  if (/^https?:\/\/\S+$/i.test(text) && !event.target.closest?.('input')) takeAddress(text);
});

// A drop anywhere counts: one that misses must not make the browser leave the page.
const carries = (event) => event.dataTransfer.types.includes('Files') || event.dataTransfer.types.includes('text/uri-list');

document.addEventListener('dragover', (event) => {
  if (!carries(event)) return;
  event.preventDefault();
  zone.dataset.over = '';
});

document.addEventListener('dragleave', (event) => {
  if (!event.relatedTarget) delete zone.dataset.over;
});

document.addEventListener('drop', (event) => {
  delete zone.dataset.over;
  if (!carries(event)) return;
  event.preventDefault();
  const { files } = event.dataTransfer;
  if (files.length) takeFiles(files);
  else takeAddress(event.dataTransfer.getData('text/uri-list').split('\n').find((line) => !line.startsWith('#'))?.trim() ?? '');
});

// Last, because from here on the page looks as if all of that worked.
document.documentElement.dataset.script = '';
const first = find('#answers');
if (first.dataset.state === 'empty') { // a reload may keep the form's contents
  if (file.files.length) changed();
  else if (address.value) show(clone('ready'));
} else {
  if (file.files.length) showFile();
  if (first.dataset.again) follow(first, wait(Number(first.dataset.elapsed ?? 0) * 1000));
}
