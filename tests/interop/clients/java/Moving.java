import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Random;
import java.util.TreeMap;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * The `clients` of ../moving.py by Apache Kafka's own client: same arguments, same records, same words on stdin and stdout.
 */
public final class Moving {
    static final int EACH = 8;
    static final int CLIENTS = 8;
    static final int OUTSTANDING_MAX = 200;
    static final long CATCH_UP_S = 120;
    static final Map<String, String> OPTIONS = new HashMap<>();
    static final BufferedReader STDIN = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));

    static byte[] content(String topic, int partition, long n) {
        byte[] head = (topic + "/" + partition + "/" + n + "/").getBytes(StandardCharsets.US_ASCII);
        byte[] all = Arrays.copyOf(head, head.length + (int) ((partition * 31 + n * 7) % 300));
        Arrays.fill(all, head.length, all.length, (byte) 'x');
        return all;
    }

    static Properties settings() {
        Properties p = new Properties();
        p.put("bootstrap.servers", OPTIONS.get("broker"));
        p.put("request.timeout.ms", "10000");
        p.put("reconnect.backoff.ms", "50");
        p.put("reconnect.backoff.max.ms", "500");
        p.put("retry.backoff.ms", "20");
        p.put("metadata.max.age.ms", "5000");
        return p;
    }

    abstract static class Part extends Thread {
        final String topic = OPTIONS.get("topic");
        final List<String> errors = Collections.synchronizedList(new ArrayList<>());
        final Random random;
        long progress = System.nanoTime();
        long gap;

        Part(int seed) {
            random = new Random(seed);
            setDaemon(true);
        }

        abstract void work() throws Exception;

        @Override
        public void run() {
            try {
                work();
            } catch (Throwable error) {
                error.printStackTrace();
                errors.add(error.toString());
            }
        }

        synchronized void progressed(long since) {
            long now = System.nanoTime();
            gap = Math.max(gap, now - Math.max(progress, since));
            progress = now;
        }
    }

    static final class Producing extends Part {
        final int first;
        final long[] sent = new long[EACH];
        final long[] acked = new long[EACH];
        final Semaphore outstanding = new Semaphore(OUTSTANDING_MAX);
        volatile boolean stop;

        Producing(int client, int seed) {
            super(seed * 100 + client);
            first = client * EACH;
        }

        void send(KafkaProducer<byte[], byte[]> producer, int i) throws InterruptedException {
            while (!outstanding.tryAcquire(100, TimeUnit.MILLISECONDS)) {
                if (!errors.isEmpty()) {
                    return;
                }
            }
            long n = sent[i]++;
            long at = System.nanoTime();
            producer.send(new ProducerRecord<>(topic, first + i, null, content(topic, first + i, n)), (metadata, error) -> {
                outstanding.release();
                progressed(at);
                if (error != null) {
                    errors.add("partition " + (first + i) + ", record " + n + ": " + error);
                } else if (metadata.offset() != n || acked[i] != n) {
                    errors.add("partition " + (first + i) + ", record " + n + ": acknowledged at " + metadata.offset()
                        + ", behind record " + (acked[i] - 1));
                } else {
                    acked[i]++;
                }
            });
        }

        @Override
        void work() throws Exception {
            Properties p = settings();
            p.put("enable.idempotence", "true");
            p.put("acks", "all");
            p.put("max.in.flight.requests.per.connection", "5");
            p.put("linger.ms", "0");
            p.put("batch.size", "2048");
            p.put("delivery.timeout.ms", "300000");
            p.put("max.block.ms", "120000");
            try (KafkaProducer<byte[], byte[]> producer =
                     new KafkaProducer<>(p, new ByteArraySerializer(), new ByteArraySerializer())) {
                while (!stop && errors.isEmpty()) {
                    int partition = random.nextInt(EACH);
                    int burst = 1 + random.nextInt(120);
                    for (int i = 0; i < burst; i++) {
                        send(producer, random.nextInt(50) > 0 ? partition : random.nextInt(EACH));
                    }
                    Thread.sleep(5);
                }
                producer.flush();
            }
        }
    }

    static final class Consuming extends Part {
        final Map<Integer, Long> next = new TreeMap<>();
        volatile Map<Integer, Long> ends;

        Consuming(int client, int seed) {
            super(seed * 100 + 50 + client);
            int first = (client + CLIENTS / 2) % CLIENTS * EACH;
            for (int p = first; p < first + EACH; p++) {
                next.put(p, 0L);
            }
        }

        boolean isRead(int partition) {
            return ends != null && next.get(partition) >= ends.get(partition);
        }

        void take(ConsumerRecord<byte[], byte[]> r) {
            progressed(0);
            long expected = next.get(r.partition());
            if (r.offset() != expected || !Arrays.equals(r.value(), content(topic, r.partition(), r.offset()))) {
                errors.add("partition " + r.partition() + ", offset " + r.offset() + " where " + expected + " is next: "
                    + new String(r.value(), StandardCharsets.ISO_8859_1));
            } else {
                next.put(r.partition(), expected + 1);
            }
        }

        void read(KafkaConsumer<byte[], byte[]> consumer, List<Integer> partitions, long ms) {
            List<TopicPartition> assigned = new ArrayList<>();
            partitions.forEach(p -> assigned.add(new TopicPartition(topic, p)));
            consumer.assign(assigned);
            assigned.forEach(p -> consumer.seek(p, next.get(p.partition())));
            long end = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(ms);
            while (System.nanoTime() < end && errors.isEmpty() && !partitions.stream().allMatch(this::isRead)) {
                consumer.poll(Duration.ofMillis(50)).forEach(this::take);
            }
        }

        @Override
        void work() {
            Properties p = settings();
            p.put("check.crcs", "true");
            p.put("auto.offset.reset", "none");
            p.put("fetch.max.wait.ms", "50");
            List<Integer> all = new ArrayList<>(next.keySet());
            try (KafkaConsumer<byte[], byte[]> consumer =
                     new KafkaConsumer<>(p, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
                while (ends == null && errors.isEmpty()) {
                    boolean one = random.nextInt(5) > 0;
                    List<Integer> some = one ? Collections.singletonList(all.get(random.nextInt(all.size()))) : all;
                    read(consumer, some, 50 + random.nextInt(250));
                }
                long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(CATCH_UP_S);
                while (errors.isEmpty() && !all.stream().allMatch(this::isRead)) {
                    if (System.nanoTime() > deadline) {
                        errors.add("not read to the ends: " + next + " of " + ends);
                    }
                    read(consumer, all, 1000);
                }
            }
        }
    }

    static void say(String line) {
        System.out.println(line);
        System.out.flush();
    }

    static String[] told(String word) throws Exception {
        String line = STDIN.readLine();
        if (line == null || !line.split(" ")[0].equals(word)) {
            throw new IllegalStateException(word + " expected, told " + line);
        }
        return line.substring(word.length()).trim().split(" ");
    }

    static void finish(List<? extends Part> parts) throws InterruptedException {
        for (Part part : parts) {
            part.join(TimeUnit.SECONDS.toMillis(2 * CATCH_UP_S));
        }
        for (Part part : parts) {
            List<String> errors = new ArrayList<>(part.errors);
            if (errors.isEmpty() && part.isAlive()) {
                errors.add("goes on");
            }
            errors.stream().limit(3).forEach(e -> say("error " + part.getClass().getSimpleName() + ": " + e));
        }
    }

    static double longest(List<? extends Part> parts) {
        return parts.stream().mapToLong(part -> part.gap).max().orElse(0) / 1e9;
    }

    public static void main(String[] args) throws Exception {
        for (int i = 1; i + 1 < args.length; i += 2) {
            OPTIONS.put(args[i].substring(2), args[i + 1]);
        }
        int seed = Integer.parseInt(OPTIONS.get("seed"));
        List<Producing> producing = new ArrayList<>();
        List<Consuming> consuming = new ArrayList<>();
        for (String client : OPTIONS.get("clients").split(",")) {
            producing.add(new Producing(Integer.parseInt(client), seed));
            consuming.add(new Consuming(Integer.parseInt(client), seed));
        }
        producing.forEach(Thread::start);
        consuming.forEach(Thread::start);
        told("stop");
        producing.forEach(p -> p.stop = true);
        finish(producing);
        StringBuilder acked = new StringBuilder("acked");
        for (Producing p : producing) {
            for (int i = 0; i < EACH; i++) {
                acked.append(' ').append(p.first + i).append('=').append(p.acked[i]);
            }
        }
        say(acked.toString());
        Map<Integer, Long> ends = new HashMap<>();
        for (String item : told("ends")) {
            String[] both = item.split("=");
            ends.put(Integer.parseInt(both[0]), Long.parseLong(both[1]));
        }
        consuming.forEach(c -> c.ends = ends);
        finish(consuming);
        long read = consuming.stream().flatMap(c -> c.next.values().stream()).mapToLong(Long::longValue).sum();
        say(String.format("done %d %.3f %.3f", read, longest(producing), longest(consuming)));
        System.exit(0);
    }
}
