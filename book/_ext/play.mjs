// What mystmd needs to know of `{play}`: the static text stands in its place. _ext/play.py is its twin for Sphinx.
const play = {
  name: 'play',
  doc: 'A piece to play with; without scripts, what is written inside.',
  arg: { type: String, required: true },
  body: { type: 'myst', required: true },
  run: (data) => data.body,
};

export default { name: 'Play', directives: [play] };
