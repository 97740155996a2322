// Keeps the component's value in step with what is on the canvas. One upload at a time; what changes meanwhile
// goes out in the next round; a failed upload stays pending until it is tried again.

const QUIET_MS = 200; // after the last stroke, so that a row of quick dabs makes one upload

class ValueSync {
  #picture = null; // {file} until it is uploaded, then {data}
  #mask = null;
  #sentVersion = 0;
  #sentMask = null;
  #pictureSent = true;
  #timer = 0;
  #running = null;
  #epoch = 0; // grows when another picture comes in, so that late uploads of the old one are dropped

  // upload(File) -> {path, url}; publish({image, mask}, isNewPicture) sets the value; onState() tells of a change.
  constructor({ upload, publish, onState }) {
    this.upload = upload;
    this.publish = publish;
    this.onState = onState;
    this.error = null;
  }

  get pending() {
    return !this.#pictureSent || (this.#mask !== null && this.#mask.version !== this.#sentVersion);
  }

  // The value came from the server: nothing is to be sent.
  adopt(image, mask, maskData) {
    this.#take(image && { data: image }, mask);
    this.#pictureSent = true;
    this.#sentMask = maskData;
  }

  // The user opened a picture: `file` is a File, or FileData that the server already has.
  open(picture, mask) {
    this.#take(picture, mask);
    this.#pictureSent = false;
    this.#start();
  }

  // The mask has changed: send it when the user pauses.
  maskChanged() {
    this.error = null;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#start(), QUIET_MS);
    this.onState();
  }

  // Resolves when all is sent; rejects with the reason when it cannot be.
  async flush() {
    clearTimeout(this.#timer);
    if (this.pending) this.#start();
    while (this.#running) await this.#running;
    if (this.error) throw this.error;
  }

  #take(picture, mask) {
    clearTimeout(this.#timer);
    this.#epoch++;
    this.#picture = picture;
    this.#mask = mask;
    this.#sentVersion = mask?.version ?? 0;
    this.#sentMask = null;
    this.error = null;
    this.onState();
  }

  #start() {
    this.#running ??= this.#run().finally(() => {
      this.#running = null;
      this.onState();
    });
    this.onState();
  }

  async #run() {
    this.error = null;
    while (this.pending && !this.error) {
      const epoch = this.#epoch;
      try {
        await this.#sendOnce(epoch);
      } catch (error) {
        if (epoch === this.#epoch) this.error = error instanceof Error ? error : new Error(String(error));
      }
    }
  }

  async #sendOnce(epoch) {
    const picture = this.#picture;
    const mask = this.#mask;
    if (!picture.data) picture.data = fileData(await this.upload(picture.file), picture.file.name);
    const version = mask?.version ?? 0;
    const maskData = version === this.#sentVersion ? this.#sentMask : await this.#sendMask(mask);
    if (epoch !== this.#epoch) return;
    const isNewPicture = !this.#pictureSent;
    this.#sentVersion = version;
    this.#sentMask = maskData;
    this.#pictureSent = true;
    this.publish({ image: picture.data, mask: maskData }, isNewPicture);
  }

  async #sendMask(mask) {
    if (mask.empty) return null;
    const name = "mask.png";
    return fileData(await this.upload(new File([await encodeMask(mask)], name, { type: "image/png" })), name);
  }
}

function fileData({ path, url }, name) {
  return { path, url, orig_name: name, meta: { _type: "gradio.FileData" } };
}
