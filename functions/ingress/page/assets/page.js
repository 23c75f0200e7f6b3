// What the page does beyond a plain form: preview, drop, paste, camera, and answers without leaving the page.
//
// It writes no markup and no sentences. What it shows are templates of the page (sections, notes) and the section that
// the server answers. What is asked is what the form has in it, so the form is the only state.

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
const coldAfter = 2000; // milliseconds until a slow answer is explained

let stop = () => {}; // ends the question that is under way

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

// show puts a section in the place of the present one.
function show(section) {
  find('#answers').replaceWith(section);
  return section;
}

// lead shows a section and takes the reader there: its words are announced, its heading has the focus.
function lead(section) {
  show(section);
  const words = [...section.querySelectorAll('[data-say]')].map((said) => said.textContent.replace(/\s+/g, ' ').trim());
  say(words.join('. ').replaceAll('.. ', '. '));
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
  const picture = file.files[0];
  showPreview(picture && URL.createObjectURL(picture));
  zone.dataset.shows = picture ? 'picture' : '';
  describe();
  const refusal = picture && refuse(picture);
  if (refusal) lead(clone(refusal));
  else show(clone(picture || address.value ? 'ready' : 'empty'));
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

  const cancel = new AbortController();
  const cold = setTimeout(() => {
    const text = find('[data-part=cold]', working);
    text.hidden = false;
    say(text.textContent);
  }, coldAfter);
  stop = () => {
    clearTimeout(cold);
    cancel.abort();
    go.removeAttribute('aria-disabled');
    stop = () => {};
  };
  go.setAttribute('aria-disabled', 'true');

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
    section = await send(onProgress, cancel.signal) ?? clone('strange-answer');
  } catch {
    section = clone('offline');
  }
  if (cancel.signal.aborted) return;
  stop();
  const seen = find('[data-seen]', section);
  if (seen) {
    showPreview(seen.src);
    zone.dataset.shows = 'picture';
  }
  lead(section);
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
if (file.files.length) changed(); // a reload may keep the form's contents
else if (address.value && find('#answers').dataset.state === 'empty') show(clone('ready'));
