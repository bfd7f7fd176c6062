import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeSet;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.AdminClient;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.DescribeClusterResult;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionInfo;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** What ../administering.py does, by Apache Kafka's own client. Arguments: BROKER TOPIC SHARDS. */
public final class Administering {
    static final int RECORDS = 50;
    static AdminClient admin;
    static String topic;

    static <T> T get(KafkaFuture<T> future) throws Exception {
        return future.get(30, TimeUnit.SECONDS);
    }

    static void expect(String what, Object got, Object wanted) {
        if (!got.equals(wanted)) {
            throw new AssertionError(what + ": " + got + ", not " + wanted);
        }
    }

    static TreeSet<Integer> cluster(int shards) throws Exception {
        DescribeClusterResult described = admin.describeCluster();
        Collection<Node> nodes = get(described.nodes());
        TreeSet<Integer> ids = new TreeSet<>();
        nodes.forEach(node -> ids.add(node.id()));
        expect("brokers", ids.size(), shards);
        expect("the controller is a broker", ids.contains(get(described.controller()).id()), true);
        for (int id : ids) {
            ConfigResource resource = new ConfigResource(ConfigResource.Type.BROKER, Integer.toString(id));
            Config config = get(admin.describeConfigs(Collections.singleton(resource)).all()).get(resource);
            expect("shards of broker " + id, config.get("shards").value(), Integer.toString(shards));
        }
        return ids;
    }

    /** The method of the oldest release is gone from the newest. */
    @SuppressWarnings("unchecked")
    static TopicDescription describe() throws Exception {
        Object result = admin.describeTopics(Collections.singleton(topic));
        Object byName;
        try {
            byName = result.getClass().getMethod("topicNameValues").invoke(result);
        } catch (NoSuchMethodException old) {
            byName = result.getClass().getMethod("values").invoke(result);
        }
        return get(((Map<String, KafkaFuture<TopicDescription>>) byName).get(topic));
    }

    static void partitions(int count, TreeSet<Integer> ids) throws Exception {
        TopicDescription described = null;
        for (int i = 0; i < 100 && (described == null || described.partitions().size() != count); i++) {
            Thread.sleep(i > 0 ? 100 : 0);
            described = describe();
        }
        expect("partitions", described.partitions().size(), count);
        TreeSet<Integer> leaders = new TreeSet<>();
        for (TopicPartitionInfo p : described.partitions()) {
            leaders.add(p.leader().id());
            expect("replicas of " + p.partition(), p.replicas(), Collections.singletonList(p.leader()));
            expect("in-sync replicas of " + p.partition(), p.isr(), Collections.singletonList(p.leader()));
        }
        expect("leaders", leaders, ids);
    }

    static List<Long> offsets(int count, OffsetSpec spec) throws Exception {
        Map<TopicPartition, OffsetSpec> asked = new HashMap<>();
        for (int p = 0; p < count; p++) {
            asked.put(new TopicPartition(topic, p), spec);
        }
        Map<TopicPartition, ?> all = get(admin.listOffsets(asked).all());
        List<Long> out = new ArrayList<>();
        for (int p = 0; p < count; p++) {
            Object info = all.get(new TopicPartition(topic, p));
            out.add(((org.apache.kafka.clients.admin.ListOffsetsResult.ListOffsetsResultInfo) info).offset());
        }
        return out;
    }

    static void produce(String broker, int count) throws Exception {
        Properties p = new Properties();
        p.put("bootstrap.servers", broker);
        try (KafkaProducer<byte[], byte[]> producer =
                 new KafkaProducer<>(p, new ByteArraySerializer(), new ByteArraySerializer())) {
            for (int n = 0; n < RECORDS * count; n++) {
                producer.send(new ProducerRecord<>(topic, n % count, null, new byte[] {(byte) n}));
            }
        }
    }

    public static void main(String[] args) throws Exception {
        Properties p = new Properties();
        p.put("bootstrap.servers", args[0]);
        topic = args[1];
        int shards = Integer.parseInt(args[2]);
        int count = 2 * shards;
        admin = AdminClient.create(p);
        TreeSet<Integer> ids = cluster(shards);
        get(admin.createTopics(Collections.singleton(new NewTopic(topic, count, (short) 1))).all());
        partitions(count, ids);
        produce(args[0], count);
        Long[] ends = new Long[2 * count];
        Arrays.fill(ends, 0L);
        Arrays.fill(ends, 0, count, (long) RECORDS);
        expect("ends", offsets(count, OffsetSpec.latest()), Arrays.asList(ends).subList(0, count));
        Map<TopicPartition, RecordsToDelete> deleted = new HashMap<>();
        List<Long> starts = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            deleted.put(new TopicPartition(topic, i), RecordsToDelete.beforeOffset(i + 1));
            starts.add(i + 1L);
        }
        get(admin.deleteRecords(deleted).all());
        expect("starts", offsets(count, OffsetSpec.earliest()), starts);
        get(admin.createPartitions(Collections.singletonMap(topic, NewPartitions.increaseTo(2 * count))).all());
        partitions(2 * count, ids);
        expect("ends of all", offsets(2 * count, OffsetSpec.latest()), Arrays.asList(ends));
        get(admin.deleteTopics(Collections.singleton(topic)).all());
        for (int i = 0; get(admin.listTopics().names()).contains(topic); i++) {
            expect("it is still there after 10 s", i < 100, true);
            Thread.sleep(100);
        }
        admin.close();
    }
}
