// Hands in the invitation that stands behind the # of the address. It goes in the body of one request, so that no
// log and no history keeps it, and the address is cleaned at once.

const token = location.hash.slice(1);
history.replaceState(null, "", location.pathname);

const show = (id) => {
  for (const part of ["wait", "busy", "bad"]) document.getElementById(part).hidden = part !== id;
};

const handIn = async () => {
  const answer = await fetch("/api/session", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ token }),
  });
  if (answer.ok) location.replace("/");
  else show(answer.status === 429 || answer.status === 503 ? "busy" : "bad");
};

if (token) handIn().catch(() => show("busy"));
else show("bad");
