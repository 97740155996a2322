// Pictures in, masks out. A picture's size is read from its header first, so that a bomb is refused unopened.

const MASK_THRESHOLD = 128;
const STRIP_ROWS = 256;
const HEADER_BYTES = 2 ** 20; // a JPEG may carry a large thumbnail before its size

class NotAPicture extends Error {}

// -> {image, width, height}: made upright (EXIF) and colour-managed (ICC) by the browser.
async function decodePicture(blob, name, maxPixels) {
  const size = headerSize(new Uint8Array(await blob.slice(0, HEADER_BYTES).arrayBuffer()));
  const refusal = `“${name}” is not a picture that can be opened here. Use a PNG, JPEG or WebP file.`;
  if (!size) throw new NotAPicture(refusal);
  if (size.width * size.height > maxPixels) {
    const limit = Math.floor(maxPixels / 1e6);
    const found = `${size.width} × ${size.height}`;
    throw new NotAPicture(`“${name}” has ${found} pixels; at most ${limit} megapixels can be opened.`);
  }
  const url = URL.createObjectURL(blob);
  const image = new Image();
  image.src = url;
  try {
    await image.decode();
  } catch {
    throw new NotAPicture(refusal);
  } finally {
    URL.revokeObjectURL(url);
  }
  return { image, width: image.naturalWidth, height: image.naturalHeight };
}

// The stored size of a PNG, JPEG, GIF, BMP, WebP or AVIF; null for anything else.
function headerSize(bytes) {
  const view = new DataView(bytes.buffer);
  const text = (start, end) => String.fromCharCode(...bytes.subarray(start, end));
  if (bytes.length < 30) return null;
  if (text(1, 4) === "PNG") return { width: view.getUint32(16), height: view.getUint32(20) };
  if (text(0, 3) === "GIF") return { width: view.getUint16(6, true), height: view.getUint16(8, true) };
  if (text(0, 2) === "BM") return { width: view.getInt32(18, true), height: Math.abs(view.getInt32(22, true)) };
  if (text(8, 12) === "WEBP") return webpSize(view, text(12, 16));
  if (text(4, 8) === "ftyp") return avifSize(view);
  if (view.getUint16(0) === 0xffd8) return jpegSize(view);
  return null;
}

function webpSize(view, chunk) {
  const uint24 = (at) => view.getUint16(at, true) | (view.getUint8(at + 2) << 16);
  if (chunk === "VP8X") return { width: uint24(24) + 1, height: uint24(27) + 1 };
  if (chunk === "VP8 ") return { width: view.getUint16(26, true) & 0x3fff, height: view.getUint16(28, true) & 0x3fff };
  const bits = view.getUint32(21, true);
  return { width: (bits & 0x3fff) + 1, height: ((bits >> 14) & 0x3fff) + 1 };
}

function avifSize(view) {
  const ispe = 0x69737065; // the box that holds the size
  for (let at = 8; at + 16 < view.byteLength; at++) {
    if (view.getUint32(at) === ispe) return { width: view.getUint32(at + 8), height: view.getUint32(at + 12) };
  }
  return null;
}

function jpegSize(view) {
  let at = 2;
  while (at + 9 < view.byteLength && view.getUint8(at) === 0xff) {
    const marker = view.getUint8(at + 1);
    const isFrame = marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);
    if (isFrame) return { width: view.getUint16(at + 7), height: view.getUint16(at + 5) };
    at += 2 + view.getUint16(at + 2);
  }
  return null;
}

// A picture as mask pixels (0 or 255) of the given size. As on the server: transparency decides where there
// is any, brightness elsewhere.
function maskPixels(picture, width, height) {
  const alpha = new Uint8Array(width * height);
  const luma = new Uint8Array(width * height);
  const strip = new OffscreenCanvas(width, Math.min(STRIP_ROWS, height));
  const context = strip.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingEnabled = false;
  let transparent = false;
  for (let top = 0; top < height; top += STRIP_ROWS) {
    const rows = Math.min(STRIP_ROWS, height - top);
    context.clearRect(0, 0, width, rows);
    const scale = picture.height / height;
    context.drawImage(picture.image, 0, top * scale, picture.width, rows * scale, 0, 0, width, rows);
    const { data } = context.getImageData(0, 0, width, rows);
    for (let i = 0, at = top * width; i < data.length; i += 4, at++) {
      const brightness = data[i] * 0.299 + data[i + 1] * 0.587 + data[i + 2] * 0.114;
      transparent ||= data[i + 3] < 255;
      alpha[at] = data[i + 3] > MASK_THRESHOLD ? MASKED : 0;
      luma[at] = brightness >= MASK_THRESHOLD ? MASKED : 0;
    }
  }
  return transparent ? alpha : luma;
}

// The mask as a black and white PNG of 1 bit a pixel: 4096 x 4096 takes tens of milliseconds, and a few kilobytes.
async function encodeMask(mask) {
  const header = new Uint8Array(13);
  new DataView(header.buffer).setUint32(0, mask.width);
  new DataView(header.buffer).setUint32(4, mask.height);
  header[8] = 1; // bit depth; the rest is greyscale, deflate, no filter, no interlace: all 0
  const rows = packRows(mask);
  const deflated = new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate"));
  const data = await new Response(deflated).arrayBuffer();
  const signature = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);
  const chunks = [pngChunk("IHDR", header), pngChunk("IDAT", new Uint8Array(data)), pngChunk("IEND", new Uint8Array())];
  return new Blob([signature, ...chunks], { type: "image/png" });
}

// Eight pixels a byte; each row begins with the byte that names its filter, 0 for none.
function packRows({ pixels, width, height }) {
  const stride = 1 + Math.ceil(width / 8);
  const packed = new Uint8Array(stride * height);
  for (let y = 0, at = 0; y < height; y++) {
    const out = y * stride + 1;
    for (let x = 0; x < width; x++, at++) packed[out + (x >> 3)] |= pixels[at] & (128 >> (x & 7));
  }
  return packed;
}

function pngChunk(type, data) {
  const chunk = new Uint8Array(12 + data.length);
  const view = new DataView(chunk.buffer);
  view.setUint32(0, data.length);
  chunk.set([...type].map((letter) => letter.charCodeAt(0)), 4);
  chunk.set(data, 8);
  view.setUint32(8 + data.length, crc32(chunk.subarray(4, 8 + data.length)));
  return chunk;
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = CRC_TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}
