// Search is all that needs a script; without one the page shows everything and filters by itself.
const search = document.getElementById("search");
if (search) {
  search.parentElement.hidden = false;
  const rows = [...document.querySelectorAll(".verdicts tbody tr")];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  search.addEventListener("input", () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    rows.forEach((row, place) => row.classList.toggle("unsought", !words.every((word) => texts[place].includes(word))));
  });
  search.form.addEventListener("submit", (event) => event.preventDefault());
}
