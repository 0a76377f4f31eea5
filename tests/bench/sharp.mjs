// Makes thumbnails with sharp: a line of JSON in, a line of JSON out, as contenders.py does.
import { readFileSync, writeFileSync } from "node:fs";
import { createInterface } from "node:readline";
import sharp from "sharp";

const encode = {
  jpeg: (image) => image.jpeg({ quality: 80 }),
  webp: (image) => image.webp({ quality: 80, effort: 4 }),
  avif: (image) => image.avif({ quality: 60, effort: 2, chromaSubsampling: "4:2:0" }),
};
const originals = new Map();
const say = (answer) => process.stdout.write(JSON.stringify(answer) + "\n");

say({ version: `sharp ${sharp.versions.sharp}, libvips ${sharp.versions.vips}, Node.js ${process.versions.node}` });
for await (const line of createInterface({ input: process.stdin })) {
  const task = JSON.parse(line);
  if (!originals.has(task.original)) originals.set(task.original, readFileSync(task.original));
  const blob = originals.get(task.original);
  const wall = process.hrtime.bigint();
  const cpu = process.cpuUsage();
  const thumbnail = await encode[task.format](sharp(blob).autoOrient().resize(task.width)).toBuffer();
  const used = process.cpuUsage(cpu);
  const passed = process.hrtime.bigint() - wall;
  if (task.output) writeFileSync(task.output, thumbnail);
  say({ cpu: (used.user + used.system) / 1e6, wall: Number(passed) / 1e9, size: thumbnail.length });
}
