"""A service that reads digits: pixels go in by HTTP, probabilities come out as JSON.

``python examples/digit_service.py 8000`` serves until Ctrl-C; without a port it answers three
requests of its own, and ends. The server is Python's own, for a trusted network.
"""

# %% A model that was trained and saved before. Here it is trained for some seconds.
import json
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

import fastcnn
from fastcnn.layers import Conv2D, Dense, Flatten, MaxPool2D

(x, y), (x_test, y_test) = fastcnn.load_mnist()
layers = [Conv2D(8, 3), MaxPool2D(2), Flatten(), Dense(10)]
model = fastcnn.Sequential(layers, input_shape=(28, 28, 1), seed=0)
model.fit(x[:6000], y[:6000], epochs=2, optimizer="adam", seed=0, verbose=0)
with tempfile.TemporaryDirectory() as folder:
    model.save(Path(folder, "digits.safetensors"))
    model = fastcnn.load_model(Path(folder, "digits.safetensors"))

# %% The first prediction compiles what is missing; it comes before the first request.
model.predict(x_test[:1])
SIZE = 28 * 28


class Service(BaseHTTPRequestHandler):
    """``POST /``: 784 bytes, row by row, light on dark. A model may predict in several threads."""

    def do_POST(self):
        """Answer with the digit and the probabilities, or say what would do."""
        length = self.headers.get("Content-Length", "")
        if length != str(SIZE):
            self.answer(
                400, {"error": f"the body must be {SIZE} bytes, got {length or 'no length'}"}
            )
            return
        pixels = np.frombuffer(self.rfile.read(SIZE), np.uint8)
        if pixels.size < SIZE:
            self.answer(400, {"error": f"the body must be {SIZE} bytes, got {pixels.size}"})
            return
        (probabilities,) = model.predict(pixels.reshape(1, 28, 28))
        digit = int(probabilities.argmax())
        self.answer(
            200, {"digit": digit, "probabilities": [round(float(p), 4) for p in probabilities]}
        )

    def answer(self, status, content):
        """Send JSON."""
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Print nothing for each request."""


port = int(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1].isdigit() else 0
server = ThreadingHTTPServer(("127.0.0.1", port), Service)
address = f"http://127.0.0.1:{server.server_port}/"

# %% Three requests, as a client sends them, and one that is refused.
if port:
    print(f"{address} reads digits; Ctrl-C ends it")
    server.serve_forever()
thread = threading.Thread(target=server.serve_forever)
thread.start()
for k in range(3):
    with urllib.request.urlopen(address, x_test[k].tobytes(), timeout=30) as reply:
        answer = json.load(reply)
    print(f"a {y_test[k]} is read as {answer['digit']} ({max(answer['probabilities']):.1%})")
try:
    urllib.request.urlopen(address, b"too short", timeout=30)
except urllib.error.HTTPError as error:
    print("refused:", json.load(error)["error"])
server.shutdown()
server.server_close()
thread.join()
