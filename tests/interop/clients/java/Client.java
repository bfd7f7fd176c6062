import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.AdminClient;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Apache Kafka's own client: create, produce, consume. The arguments and the records are those of ../arguments.py
 * and ../records.py. Compiled once against the oldest release, run with each.
 */
public final class Client {
    static final int PARTITIONS = 4;

    final Map<String, String> options = new HashMap<>();
    final String broker;
    final String topic;
    final int count;
    final String acks;
    final boolean plain;

    Client(String[] args) {
        for (int i = 1; i < args.length; i++) {
            String name = args[i].substring(2);
            options.put(name, name.equals("idempotent") ? "true" : args[++i]);
        }
        broker = options.get("broker");
        topic = options.get("topic");
        count = Integer.parseInt(options.getOrDefault("count", "100000"));
        acks = options.getOrDefault("acks", "all");
        plain = options.getOrDefault("profile", "rich").equals("plain");
    }

    public static void main(String[] args) {
        Client client = new Client(args);
        for (String action : args[0].split(",")) {
            try {
                switch (action) {
                    case "create": client.create(); break;
                    case "produce": client.produce(); break;
                    case "consume": client.consume(); break;
                    default: throw new IllegalArgumentException(action);
                }
            } catch (Throwable error) {
                System.err.println(action + ": " + error);
                System.exit(1);
            }
        }
    }

    Properties properties() {
        Properties p = new Properties();
        p.put("bootstrap.servers", broker);
        return p;
    }

    void create() throws Exception {
        try (AdminClient admin = AdminClient.create(properties())) {
            admin.createTopics(Collections.singleton(new NewTopic(topic, PARTITIONS, (short) 1))).all().get(30, TimeUnit.SECONDS);
        }
    }

    void produce() throws Exception {
        Properties p = properties();
        p.put("acks", acks);
        p.put("enable.idempotence", options.getOrDefault("idempotent", "false"));
        p.put("compression.type", options.getOrDefault("codec", "none"));
        p.put("linger.ms", "5");
        List<Future<RecordMetadata>> sent = new ArrayList<>(count);
        try (KafkaProducer<byte[], byte[]> producer =
                 new KafkaProducer<>(p, new ByteArraySerializer(), new ByteArraySerializer())) {
            for (int i = 0; i < count; i++) {
                sent.add(producer.send(new ProducerRecord<>(topic, i % PARTITIONS, key(i), value(i), headers(i))));
            }
            producer.flush();
            long[] next = new long[PARTITIONS];
            for (Future<RecordMetadata> future : sent) {
                RecordMetadata m = future.get(60, TimeUnit.SECONDS);
                if (!acks.equals("0") && m.offset() != next[m.partition()]++) {
                    throw new AssertionError("partition " + m.partition() + ": acknowledged at offset " + m.offset());
                }
            }
        }
    }

    void consume() {
        Properties p = properties();
        p.put("check.crcs", "true");
        p.put("auto.offset.reset", "none");
        try (KafkaConsumer<byte[], byte[]> consumer =
                 new KafkaConsumer<>(p, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            List<TopicPartition> partitions = new ArrayList<>();
            for (int i = 0; i < PARTITIONS; i++) {
                partitions.add(new TopicPartition(topic, i));
            }
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            long left = ends.values().stream().mapToLong(Long::longValue).sum();
            long[] seen = new long[PARTITIONS];
            int[] last = {-4, -3, -2, -1};
            long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(120);
            while (left > 0) {
                if (System.nanoTime() > deadline) {
                    throw new AssertionError(left + " records not read");
                }
                for (ConsumerRecord<byte[], byte[]> r : consumer.poll(Duration.ofSeconds(1))) {
                    check(r, seen, last);
                    left--;
                }
            }
            for (int i = 0; i < PARTITIONS; i++) {
                int expected = (count - i + PARTITIONS - 1) / PARTITIONS;
                if (acks.equals("0") ? seen[i] == 0 && expected > 0 : seen[i] != expected) {
                    throw new AssertionError("partition " + i + ": " + seen[i] + " of " + expected + " records");
                }
            }
        }
    }

    void check(ConsumerRecord<byte[], byte[]> r, long[] seen, int[] last) {
        String where = "partition " + r.partition() + ", offset " + r.offset();
        int p = r.partition();
        if (r.offset() != seen[p]++) {
            throw new AssertionError(where + ": offset " + (seen[p] - 1) + " expected");
        }
        int i = Integer.parseInt(new String(r.key(), StandardCharsets.US_ASCII).substring(4));
        if (i % PARTITIONS != p || i <= last[p] || !acks.equals("0") && i != last[p] + PARTITIONS) {
            throw new AssertionError(where + ": record " + i + " after record " + last[p]);
        }
        last[p] = i;
        if (!Arrays.equals(r.value(), value(i))) {
            throw new AssertionError(where + ": value " + Arrays.toString(r.value()) + " of record " + i);
        }
        List<Header> expected = headers(i);
        Header[] got = r.headers().toArray();
        if (!expected.equals(Arrays.asList(got))) {
            throw new AssertionError(where + ": headers " + Arrays.toString(got) + " of record " + i);
        }
    }

    static byte[] key(int i) {
        return ("key-" + i).getBytes(StandardCharsets.US_ASCII);
    }

    byte[] value(int i) {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        byte[] head = (i + "|").getBytes(StandardCharsets.US_ASCII);
        out.write(head, 0, head.length);
        for (int j = 0; j < i % 97; j++) {
            out.write(plain ? 'x' : i * 31 + j);
        }
        return out.toByteArray();
    }

    List<Header> headers(int i) {
        Header second = new RecordHeader("h", "second".getBytes(StandardCharsets.US_ASCII));
        if (plain) {
            return Arrays.asList(new RecordHeader("h", new byte[] {1, -1, -2}), second);
        }
        byte[] number = ("-" + i).getBytes(StandardCharsets.US_ASCII);
        byte[] first = ByteBuffer.allocate(number.length + 4)
            .put((byte) 0xff).put((byte) 0xfe).put(number).put((byte) 0).put((byte) 1).array();
        return Arrays.asList(new RecordHeader("h", first), second, new RecordHeader("empty", new byte[0]));
    }
}
