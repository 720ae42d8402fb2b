// The page shows everything without this: it finds tests by their names, and opens what a link leads to.
const field = document.querySelector("#find");
if (field) {
  const tests = document.querySelector("#tests"), told = document.querySelector("#found");
  document.querySelector(".find").hidden = false;
  const find = () => {
    const wanted = field.value.trim().toLowerCase();
    let count = 0;
    for (const box of tests.querySelectorAll("details.file")) {
      const whole = box.dataset.name.toLowerCase().includes(wanted);
      let here = 0;
      for (const one of box.querySelectorAll("[data-test]")) {
        const shown = whole || one.textContent.toLowerCase().includes(wanted);
        one.hidden = !shown;
        here += shown;
      }
      box.hidden = !here;
      box.open = wanted !== "" && here > 0 && here <= 200;
      count += here;
    }
    told.textContent = wanted ? `${count.toLocaleString("en")} ${count === 1 ? "test" : "tests"}` : "";
  };
  let waiting;
  field.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(find, 120); });
}
const reveal = () => {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let box = target && target.closest("details"); box; box = box.parentElement.closest("details")) box.open = true;
  if (target) target.scrollIntoView();
};
addEventListener("hashchange", reveal);
reveal();
