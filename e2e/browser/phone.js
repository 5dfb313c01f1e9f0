// The web phone of the end-to-end tests: JsSIP, driven from outside by the functions of `window.phone`.
//
// It sends a tone, so that nothing of the machine is needed. What takes time returns a promise that fails with
// the reason. What it hears is not judged.

import JsSIP from 'jssip';

const PATIENCE_MS = 20000;
const audio = new AudioContext();
let ua = null;
let stream = null;
let session = null;
const ended = [];
const texts = [];

// A stream with a tone.
function tone() {
  const oscillator = new OscillatorNode(audio, { frequency: 440 });
  const destination = new MediaStreamAudioDestinationNode(audio, { channelCount: 1 });
  oscillator.connect(destination);
  oscillator.start();
  return destination.stream;
}

function within(what, start) {
  return new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error(`${what}: not in time`)), PATIENCE_MS);
    start(resolve, (reason) => reject(new Error(`${what}: ${reason}`)));
  });
}

function follow(added) {
  session = added;
  const broken = (error) => ended.push(`description: ${error}`);
  session.on('peerconnection:setremotedescriptionfailed', broken);
  session.on('ended', (event) => ended.push(`${event.originator}: ${event.cause}`));
  session.on('failed', (event) => ended.push(`${event.originator}: ${event.cause}`));
}

window.phone = {
  // Registers by the WebSocket at `url`; incoming calls are answered.
  register(url, user, password) {
    return within('register', (resolve, reject) => {
      ua = new JsSIP.UA({
        sockets: [new JsSIP.WebSocketInterface(url)],
        uri: `sip:${user}@example.com`,
        password,
        register_expires: 300,
      });
      stream = tone();
      ua.on('registered', (event) => resolve(event.response.status_code));
      ua.on('registrationFailed', (event) => reject(event.cause));
      ua.on('disconnected', (event) => reject(`WebSocket closed: ${event.code} ${event.reason}`));
      ua.on('newRTCSession', (event) => {
        follow(event.session);
        if (event.originator === 'remote') {
          event.session.answer({ mediaStream: stream, pcConfig: { iceServers: [] } });
        }
      });
      ua.on('newMessage', (event) => {
        if (event.originator === 'remote') {
          texts.push(event.request.body);
        }
      });
      ua.start();
    });
  },

  // Calls a user; does not wait.
  dial(user) {
    ua.call(`sip:${user}@example.com`, { mediaStream: stream, pcConfig: { iceServers: [] } });
  },

  // Whether a call is up.
  isUp() {
    return session !== null && session.isEstablished();
  },

  // Ends the call.
  hangUp() {
    session.terminate();
  },

  // How all calls so far ended.
  ended() {
    return ended;
  },

  // Sends a text to a user.
  message(user, text) {
    return within('message', (resolve, reject) => {
      ua.sendMessage(`sip:${user}@example.com`, text, {
        eventHandlers: { succeeded: () => resolve('sent'), failed: (event) => reject(event.cause) },
      });
    });
  },

  // Texts that came.
  texts() {
    return texts;
  },

  // Takes the registration back and closes the WebSocket.
  stop() {
    return within('stop', (resolve) => {
      ua.on('disconnected', () => resolve('stopped'));
      ua.stop();
    });
  },
};
