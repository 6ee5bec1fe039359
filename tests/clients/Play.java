// Plays scenario.json with the official Java client; what the words of that file mean is in README.md.
import io.socket.client.Ack;
import io.socket.client.IO;
import io.socket.client.Manager;
import io.socket.client.Socket;
import io.socket.engineio.client.Transport;
import java.lang.reflect.Field;
import java.math.BigDecimal;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.HashMap;
import java.util.Iterator;
import java.util.Map;
import java.util.Objects;
import java.util.Queue;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;
import java.util.regex.Pattern;
import org.json.JSONArray;
import org.json.JSONObject;

public class Play {
    static final int DEADLINE = 10; // seconds
    static final Map<String, String[]> WAYS = Map.of(
            "websocket", new String[] {"websocket"}, "polling", new String[] {"polling"}, "upgrade", new String[] {"polling", "websocket"});
    static final Set<String> CHANGES = Set.of("notification:new", "notification:updated", "notification:deleted");
    static final Set<String> CHANGES_OF_ALL = Set.of("read-all", "cleared");
    static final HttpClient HTTP = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();

    /** What was wanted, and what came instead. */
    static class Failure extends Exception {
        Failure(String message) {
            super(message);
        }
    }

    static String brief(Object value) {
        String text = String.valueOf(value);
        return text.substring(0, Math.min(400, text.length()));
    }

    static HttpResponse<String> request(String method, String url, String token, Object body) throws Exception {
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(url)).timeout(Duration.ofSeconds(3 * DEADLINE))
                .header("Authorization", "Bearer " + token).header("Content-Type", "application/json")
                .method(method, body == null ? BodyPublishers.noBody() : BodyPublishers.ofString(body.toString()));
        return HTTP.send(request.build(), BodyHandlers.ofString());
    }

    /** Asks the driver of the tests. */
    static String ask(JSONObject question) throws Exception {
        HttpResponse<String> answer = request("POST", System.getenv("CONTROL"), "", question);
        if (answer.statusCode() == 200) return answer.body();
        throw new Failure("the driver could not " + question + ": " + answer.body());
    }

    static JSONObject ask(String driver) throws Exception {
        return new JSONObject(ask(new JSONObject().put("driver", driver)));
    }

    /** What a scenario has learnt, by name. `$name` is its value where it is known, and takes what is there where it is not. */
    static class Names {
        static final Pattern NAME = Pattern.compile("\\$(\\w+)");
        final JSONObject known;

        Names(JSONObject known) {
            this.known = known;
        }

        Object fill(Object value) throws Exception {
            if (value instanceof String text) {
                if (NAME.matcher(text).matches()) return get(text.substring(1));
                return NAME.matcher(text).replaceAll(name -> get(name.group(1)).toString());
            }
            if (value instanceof JSONArray array) {
                JSONArray filled = new JSONArray();
                for (int at = 0; at < array.length(); at++) filled.put(fill(array.get(at)));
                return filled;
            }
            if (!(value instanceof JSONObject object)) return value;
            JSONObject filled = new JSONObject();
            for (Iterator<?> keys = object.keys(); keys.hasNext();) {
                String key = (String) keys.next();
                filled.put(key, fill(object.get(key)));
            }
            return filled;
        }

        /** Whether a value is as wanted: of an object what is named, anything else whole. */
        boolean fits(Object wanted, Object value) throws Exception {
            if (value == null) return false;
            if (wanted instanceof String text && NAME.matcher(text).matches()) {
                String name = text.substring(1);
                if (!known.has(name)) known.put(name, value);
                return same(known.get(name), value);
            }
            if (wanted instanceof JSONObject some) {
                if (!(value instanceof JSONObject object)) return false;
                for (Iterator<?> keys = some.keys(); keys.hasNext();) {
                    String key = (String) keys.next();
                    if (!fits(some.get(key), object.opt(key))) return false;
                }
                return true;
            }
            if (!(wanted instanceof JSONArray all)) return same(wanted, value);
            if (!(value instanceof JSONArray array) || array.length() != all.length()) return false;
            for (int at = 0; at < all.length(); at++) if (!fits(all.get(at), array.get(at))) return false;
            return true;
        }

        Object get(String name) {
            if (known.has(name)) return known.opt(name);
            throw new IllegalArgumentException("the scenario does not know $" + name);
        }

        /** Equality of JSON, which this library does not define. */
        boolean same(Object one, Object other) throws Exception {
            if (one instanceof Number && other instanceof Number) {
                return new BigDecimal(one.toString()).compareTo(new BigDecimal(other.toString())) == 0;
            }
            if (one instanceof JSONObject object && other instanceof JSONObject another) {
                return object.length() == another.length() && fits(object, another);
            }
            return one instanceof JSONArray ? fits(one, other) : one.equals(other);
        }
    }

    /** One official client, and what it has heard and no step has taken yet: in order, for each first word of a name. */
    static class Device {
        record Heard(String event, Object payload) {}

        final String name;
        final String[] transports;
        final Socket socket;
        final boolean resumes;
        final Map<String, String> auth = new ConcurrentHashMap<>(); // the client reads it at each connect
        final Map<String, Queue<Heard>> heard = new HashMap<>();
        long lastSeq = -1;
        Object count = null;

        Device(String name, String url, String[] transports, JSONObject auth, boolean resumes) throws Exception {
            this.name = name;
            this.transports = transports;
            this.resumes = resumes;
            for (Iterator<?> keys = auth.keys(); keys.hasNext();) {
                String key = (String) keys.next();
                this.auth.put(key, auth.getString(key)); // this client has only texts in auth
            }
            IO.Options options = IO.Options.builder().setForceNew(true).setTransports(transports).setAuth(this.auth)
                    .setReconnectionDelay(100).setReconnectionDelayMax(500).build();
            socket = IO.socket(url, options);
            socket.onAnyIncoming(args -> hear((String) args[0], args.length > 1 ? args[1] : null));
            socket.on(Socket.EVENT_DISCONNECT, args -> hear("disconnect", args[0]));
            // A transport that fails is tried again, and told of as an exception; a refusal is for the scenario to hear.
            socket.on(Socket.EVENT_CONNECT_ERROR, args -> {
                if (args[0] instanceof JSONObject) hear("connect_error", args[0]);
            });
            socket.connect();
        }

        static String family(String event) {
            return event.split(":")[0];
        }

        synchronized void hear(String event, Object payload) {
            // A count that says what the one before it did may come, and need not.
            if (event.equals("notification:unread-count")) {
                Object before = count;
                count = ((JSONObject) payload).opt("count");
                if (count.equals(before)) return;
            }
            if (event.equals("disconnect")) count = null;
            boolean again = payload instanceof JSONObject object && keep(event, object);
            heard.computeIfAbsent(family(event), family -> new ArrayDeque<>()).add(new Heard(event + (again ? " again" : ""), payload));
            notifyAll();
        }

        /** Moves the position of a client that misses nothing; tells whether this is a change that it had. */
        boolean keep(String event, JSONObject payload) {
            long seq = payload.optLong("seq");
            long last = lastSeq;
            String reason = payload.optString("reason");
            boolean change = CHANGES.contains(event) || CHANGES_OF_ALL.contains(reason);
            if (reason.equals("reset")) lastSeq = seq;
            else if (change || event.equals("notification:synced")) lastSeq = Math.max(last, seq);
            if (resumes && lastSeq >= 0) auth.put("lastSeq", Long.toString(lastSeq));
            if (resumes && payload.has("epoch")) auth.put("epoch", payload.optString("epoch"));
            return change && seq <= last;
        }

        synchronized void until(BooleanSupplier there, String what) throws Exception {
            long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(DEADLINE);
            while (!there.getAsBoolean()) {
                long left = TimeUnit.NANOSECONDS.toMillis(deadline - System.nanoTime());
                if (left <= 0) throw new Failure(name + " waited " + DEADLINE + " s for " + what);
                wait(Math.min(left, 100));
            }
        }

        synchronized void hears(Names names, String event, Object wanted) throws Exception {
            Queue<Heard> queue = heard.computeIfAbsent(family(event), family -> new ArrayDeque<>());
            until(() -> !queue.isEmpty(), event + " " + brief(wanted));
            Heard next = queue.remove();
            if (next.event.equals(event) && (wanted == null || names.fits(wanted, next.payload))) return;
            throw new Failure(name + " heard " + next.event + " " + brief(next.payload) + ", and " + event + " " + brief(wanted) + " was wanted");
        }

        /** Has its connection come to the transport that its options end at? The client keeps that to itself. */
        void reached() throws Exception {
            String wanted = transports[transports.length - 1];
            until(() -> wanted.equals(transport()), "transport " + wanted);
        }

        String transport() {
            try {
                Object engine = field(Manager.class, "engine").get(socket.io());
                return ((Transport) field(io.socket.engineio.client.Socket.class, "transport").get(engine)).name;
            } catch (ReflectiveOperationException error) {
                throw new IllegalStateException(error);
            }
        }

        static Field field(Class<?> type, String name) throws NoSuchFieldException {
            Field field = type.getDeclaredField(name);
            field.setAccessible(true);
            return field;
        }
    }

    final String way;
    final Names names;
    final Map<String, Device> devices = new HashMap<>();

    /** A scenario on its way over one transport. */
    Play(String way) throws Exception {
        this.way = way;
        names = new Names(ask("begin"));
    }

    void step(JSONObject step) throws Exception {
        if (step.has("connect")) connect(step.getString("connect"), step);
        else if (step.has("hear")) hear(step.getString("hear").split(" "), step.getJSONArray("events"));
        else if (step.has("send")) send(devices.get(step.getString("send")), step);
        else if (step.has("request")) request((String) names.fill(step.get("request")), step);
        else if (step.has("driver")) driver(step);
        else devices.get(step.getString("reached")).reached();
    }

    void connect(String name, JSONObject step) throws Exception {
        String url = new JSONObject(ask(new JSONObject().put("driver", "gate").put("device", name))).getString("url");
        Object auth = step.has("auth") ? step.get("auth") : new JSONObject().put("token", "$token");
        devices.put(name, new Device(name, url, WAYS.get(way), (JSONObject) names.fill(auth), step.optBoolean("resume")));
    }

    void hear(String[] who, JSONArray events) throws Exception {
        for (String name : who) {
            for (int at = 0; at < events.length(); at++) {
                JSONArray event = events.getJSONArray(at);
                devices.get(name).hears(names, event.getString(0), event.opt(1));
            }
        }
    }

    void send(Device device, JSONObject step) throws Exception {
        String event = step.getString("event");
        Object[] args = step.has("data") ? new Object[] {names.fill(step.get("data"))} : new Object[] {};
        CompletableFuture<Object> acknowledged = new CompletableFuture<>();
        device.socket.emit(event, args, (Ack) answer -> acknowledged.complete(answer[0]));
        if (!step.has("ack")) return;
        Object answer = acknowledged.get(DEADLINE, TimeUnit.SECONDS);
        if (!names.fits(step.get("ack"), answer)) throw new Failure(event + " was acknowledged with " + brief(answer) + ", and " + step.get("ack") + " was wanted");
    }

    void request(String line, JSONObject step) throws Exception {
        String[] parts = line.split(" ");
        Object body = step.has("body") ? names.fill(step.get("body")) : null;
        HttpResponse<String> answer = request(parts[0], names.known.getString("api") + parts[1], (String) names.fill(step.get("as")), body);
        boolean fits = answer.statusCode() == step.getInt("status");
        if (fits && step.has("answer")) fits = names.fits(step.get("answer"), new JSONObject(answer.body()));
        if (!fits) throw new Failure(line + " was answered " + answer.statusCode() + " " + brief(answer.body()) + ", and " + step.get("status") + " " + brief(step.opt("answer")) + " was wanted");
    }

    void driver(JSONObject step) throws Exception {
        JSONObject question = new JSONObject(step.toString());
        Object wanted = question.remove("answer");
        JSONObject answer = new JSONObject(ask((JSONObject) names.fill(question)));
        if (wanted != null && !names.fits(wanted, answer)) throw new Failure("the driver answered " + brief(answer));
    }

    /** Says how it went, and whether well. */
    static boolean play(JSONObject scenario, String way) throws Exception {
        String title = scenario.getString("name") + " (" + way + ")";
        JSONArray steps = scenario.getJSONArray("steps");
        Play play = new Play(way);
        int at = 0;
        try {
            while (at < steps.length()) play.step(steps.getJSONObject(at++));
            System.out.println("ok " + title);
            return true;
        } catch (Exception error) {
            System.out.println("not ok " + title + "\n  step " + at + ": " + Objects.requireNonNullElse(error.getMessage(), error.toString()));
            return false;
        } finally {
            for (Device device : play.devices.values()) device.socket.disconnect();
        }
    }

    public static void main(String[] none) throws Exception {
        JSONArray scenarios = new JSONArray(ask(new JSONObject().put("driver", "scenarios")));
        JSONArray usually = new JSONArray().put("websocket");
        boolean well = true;
        for (int at = 0; at < scenarios.length(); at++) {
            JSONObject scenario = scenarios.getJSONObject(at);
            JSONArray ways = Objects.requireNonNullElse(scenario.optJSONArray("over"), usually);
            for (int way = 0; way < ways.length(); way++) well &= play(scenario, ways.getString(way));
        }
        System.exit(well ? 0 : 1);
    }
}
