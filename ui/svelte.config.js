// One compiler setting: runes everywhere, so that what is reactive can be seen.
export default { compilerOptions: { runes: true } };
