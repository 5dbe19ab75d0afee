// Socket.IO as in the design that jarvis-mesh replaces: a client joins a room per channel, and
// whatever happens is emitted to the rooms it belongs to.
//
// Events come over one TCP connection, a JSON object a line: {"rooms": [...], "event": {...}}.
// Prints its two ports as JSON once it listens.

import { createServer } from "node:http";
import { createServer as createFeed } from "node:net";
import { createInterface } from "node:readline";
import { Server } from "socket.io";

const http = createServer();
const io = new Server(http, { transports: ["websocket"], perMessageDeflate: false });

io.on("connection", (socket) => {
  socket.on("subscribe", (channels, done) => {
    for (const channel of channels) socket.join(channel);
    done();
  });
});

const feed = createFeed((source) => {
  createInterface({ input: source }).on("line", (line) => {
    const { rooms, event } = JSON.parse(line);
    io.to(rooms).emit("event", event); // a client in several of them gets it once
  });
  source.on("error", () => {}); // the benchmark cuts it when it is done
});

http.listen({ port: 0, host: "127.0.0.1", backlog: 4096 }, () => {
  feed.listen(0, "127.0.0.1", () => {
    console.log(JSON.stringify({ clients: http.address().port, feed: feed.address().port }));
  });
});
